//! The role links, and what else lies in `versions/`.

use std::path::Path;

use super::Seen;

const TEMPORARY: [&str; 4] = [".next", ".was", ".previous.new", ".factory.new"];

pub fn read(root: &Path, seen: &mut Seen) {
    let versions = root.join("versions");
    for name in super::names(&versions, seen) {
        let path = versions.join(&name);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let role = ["current", "previous", "factory"].into_iter().find(|role| *role == name);
        if let Some(role) = role {
            let target = std::fs::read_link(&path).map(|target| target.to_string_lossy().into_owned());
            match target {
                Ok(target) if !target.contains('/') && versions.join(&target).is_dir() => {
                    seen.roles.insert(role, target);
                }
                other => seen.wrong.push(format!("versions/{name}: {other:?} is no version")),
            }
        } else if name == ".switched" {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut words = text.trim_end_matches('\n').split(' ');
            let sound = (words.next(), words.next().and_then(|time| time.parse::<i64>().ok()), words.next());
            if !text.ends_with('\n') || !matches!(sound, (Some(_), Some(_), None)) {
                seen.wrong.push(format!("versions/.switched: {text:?}"));
            }
        } else if name == ".identity" {
            let identity = std::fs::read(root.join("store/identity"));
            if identity.is_err() || std::fs::read(&path).ok() != identity.ok() {
                seen.wrong.push("versions/.identity: it is not that of the store".into());
            }
        } else if name.starts_with('.') {
            let temporary = ["..switched.new", "..identity.new"].contains(&name.as_str());
            let known = temporary || TEMPORARY.contains(&name.as_str()) || name.starts_with(".probe-");
            if known { &mut seen.left } else { &mut seen.wrong }.push(format!("versions/{name}"));
        } else if !metadata.is_dir() {
            seen.wrong.push(format!("versions/{name} is no directory"));
        } else if std::fs::symlink_metadata(root.join("store/manifests").join(&name)).is_err() {
            seen.unmanaged.insert(name);
        }
    }
}
