//! The files that define a unit, found where systemd looks for them (`systemd.unit(5)`), on the machine after the switch.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::View;
use crate::config::UnitName;
use crate::fsys::Kind;
use crate::model::VersionName;
use crate::services::definition::Definition;
use crate::store::Store;

/// Where systemd looks for units, the directory that counts first in front.
const DIRECTORIES: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The files of a unit.
pub(super) enum Files {
    /// None defines it.
    None,
    /// An operator forbade to start it: its file is empty, or leads to `/dev/null`.
    Masked,
    /// These define it.
    Some(Read),
    /// They cannot be read.
    Unknown,
}

/// What the files of a unit say.
pub(super) struct Read {
    pub(super) definition: Definition,
    /// The file that defines it; others may add to it.
    pub(super) path: PathBuf,
    /// Whether one of them leads through the link that is switched.
    pub(super) switched: bool,
}

/// Finds and reads the files of a unit.
pub(super) fn of(view: &View<'_>, unit: &str) -> Files {
    let name = UnitName::of(unit);
    let own = name.files().into_iter().flat_map(|file| DIRECTORIES.map(|directory| Path::new(directory).join(&file)));
    for path in own {
        let Some(led) = view.follow(&path) else { return Files::Unknown };
        let Some(place) = led.place else { continue };
        if place.stat.kind == Kind::Device {
            return Files::Masked;
        }
        let Ok(Some(text)) = view.foreseen.read(&place) else { return Files::Unknown };
        if text.is_empty() {
            return Files::Masked;
        }
        let mut read = Read { definition: Definition::default(), switched: led.switched, path };
        let shown = read.path.display().to_string();
        read.definition.add(&shown, &String::from_utf8_lossy(&text));
        add_drop_ins(view, name, &mut read);
        return Files::Some(read);
    }
    Files::None
}

/// Takes in the files that add to a unit's own, by their names; of two with one name, the one whose directory counts first.
fn add_drop_ins(view: &View<'_>, name: UnitName<'_>, read: &mut Read) {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    let directories = name.drop_in_directories();
    let directories =
        DIRECTORIES.into_iter().flat_map(|top| directories.iter().map(move |name| Path::new(top).join(name)));
    for directory in directories {
        let Some(place) = view.follow(&directory).and_then(|led| led.place) else { continue };
        for name in view.foreseen.names(&place) {
            if name.as_bytes().ends_with(b".conf") {
                let path = directory.join(&name);
                found.entry(name).or_insert(path);
            }
        }
    }
    for path in found.into_values() {
        let Some(led) = view.follow(&path) else { continue };
        read.switched |= led.switched;
        let text = led.place.and_then(|place| view.foreseen.read(&place).ok().flatten());
        if let Some(text) = text {
            read.definition.add(&path.display().to_string(), &String::from_utf8_lossy(&text));
        }
    }
}

/// Whether a version brings a unit along: a file of it leads through `current`, and systemd would load it once this version
/// is current.
pub(in crate::ops) fn comes_with(store: &Store, version: &VersionName, unit: &str) -> bool {
    match of(&View::new(store, Some(version)), unit) {
        Files::Some(read) => read.switched && read.definition.refusals().is_empty(),
        Files::Unknown => true,
        Files::None | Files::Masked => false,
    }
}
