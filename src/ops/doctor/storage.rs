//! The file system that the store lies on: what it can do, tried; what it has left; what was left on it. And the format.

use super::{Finding, Measured, Options, Report, Severity};
use crate::error::Result;
use crate::fsys::{Dir, Space, file, mounts, system};
use crate::layout;
use crate::model::units::readable_size;
use crate::model::{Manifest, ObjectKey};
use crate::observe::Observer;
use crate::staging::{self, Run};
use crate::store::Store;
use crate::store::create::RESERVE_BYTES;

/// Links that an inode has on ext4, the file system with the lowest limit that devices use.
const MOST_LINKS: u64 = 65_000;
/// Mount options under which what was reported as durable may not be.
const NOT_DURABLE: [(&str, &str); 3] = [
    ("nobarrier", "after a power cut the medium may have kept later writes and lost earlier ones"),
    ("barrier=0", "after a power cut the medium may have kept later writes and lost earlier ones"),
    ("data=writeback", "after a power cut files may hold what others had before"),
];

pub(super) fn format(store: &Store, _: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    if let Some(obstacle) = store.format_obstacle() {
        let damaged = store.has_damaged_format();
        let (severity, kind) = match damaged {
            true => (Severity::Damage, "format-damaged"),
            false => (Severity::Trouble, "format-unknown"),
        };
        let finding = Finding::new(
            kind,
            severity,
            obstacle,
            "most commands refuse to open the store; rollback and status still work",
        )
        .at("store/format");
        report.findings.push(match damaged {
            true => finding.fixable(),
            false => finding.remedy("use the tope-store that wrote it, or a newer one"),
        });
    }
    Ok(())
}

pub(super) fn examine(store: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    space(store, options, report)?;
    mount(store, report)?;
    if let Err(error) = abilities(store, report) {
        report.not_done.push(format!("trying what the file system can do: {}", crate::error::chain(&error)));
    }
    leftovers(store, report);
    hottest(store, report);
    Ok(())
}

fn space(store: &Store, options: &Options<'_>, report: &mut Report) -> Result<()> {
    let space = Space::of(store.dir())?;
    let mut measure = |name, value: String| report.measured.push(Measured { name, value });
    measure("free_bytes", space.free_bytes.to_string());
    if space.free_inodes != u64::MAX {
        measure("free_inodes", space.free_inodes.to_string());
    }
    measure("read_only", space.read_only.to_string());
    if space.read_only {
        report.findings.push(
            Finding::new(
                "read-only",
                Severity::Trouble,
                "the file system is mounted read-only",
                "nothing can be imported, switched or rolled back; a kernel that met errors mounts so",
            )
            .remedy("see dmesg; then: mount -o remount,rw"),
        );
    }
    let low_inodes = space.free_inodes < 1000;
    if space.free_bytes < options.min_free || low_inodes {
        let inodes = if low_inodes { format!(" and {} inodes", space.free_inodes) } else { String::new() };
        report.findings.push(
            Finding::new(
                "space",
                Severity::Trouble,
                format!(
                    "{}{inodes} free; imports keep {} free",
                    readable_size(space.free_bytes),
                    readable_size(options.min_free)
                ),
                "the next import is refused; rolling back still works",
            )
            .remedy("tope-store gc --keep-last 2 --dry-run"),
        );
    }
    let reserve = store.dir().try_stat(layout::RESERVE)?;
    let reserved = reserve.is_some_and(|stat| stat.allocated_bytes >= RESERVE_BYTES);
    measure_reserve(store, reserved, report)
}

fn measure_reserve(store: &Store, reserved: bool, report: &mut Report) -> Result<()> {
    report.measured.push(Measured { name: "reserve", value: reserved.to_string() });
    if !reserved && system::network_file_system(store.dir())?.is_none() {
        report.findings.push(
            Finding::new(
                "reserve",
                Severity::Advice,
                "the reserve is not set aside",
                "gc may find no room to begin on a full disk",
            )
            .at("store/reserve")
            .fixable(),
        );
    }
    Ok(())
}

fn mount(store: &Store, report: &mut Report) -> Result<()> {
    if let Some(kind) = system::network_file_system(store.dir())? {
        report.measured.push(Measured { name: "network_file_system", value: kind.to_owned() });
    }
    let Some(options) = mounts::options_of(store.dir().stat_self()?.device) else { return Ok(()) };
    report.measured.push(Measured { name: "mount_options", value: options.clone() });
    for (option, why) in NOT_DURABLE {
        if options.split(',').any(|set| set == option) {
            report.findings.push(
                Finding::new(
                    "mount-options",
                    Severity::Trouble,
                    format!("the file system is mounted with {option}"),
                    why,
                )
                .remedy(format!("mount it without {option}")),
            );
        }
    }
    Ok(())
}

/// Tries hardlinks, clones and attributes in staging, as an import would.
fn abilities(store: &Store, report: &mut Report) -> Result<()> {
    store.check_user()?;
    let run = Run::begin(&store.staging_dir()?)?;
    let made = run.dir().create_file("probe", 0o644)?;
    let path = run.dir().path_of("probe");
    let links = run.dir().link("probe", store.versions(), ".probe-doctor");
    let _ = store.versions().remove_file_if_present(".probe-doctor");
    let mut measure = |name, able: bool| report.measured.push(Measured { name, value: able.to_string() });
    measure("hardlinks", links.is_ok());
    let clone = run.dir().create_file("clone", 0o644)?;
    measure("reflinks", file::reflink(&made, &clone, &path).unwrap_or(false));
    measure("attributes", file::takes_attributes(&made));
    run.finish()?;
    if let Err(error) = links {
        report.findings.push(
            Finding::new(
                "hardlinks",
                Severity::Trouble,
                format!("files in versions/ cannot be links to objects: {}", crate::error::chain(&error)),
                "every version takes its full size, and imports copy",
            )
            .remedy("put versions/ and store/ on one local file system"),
        );
    }
    Ok(())
}

fn leftovers(store: &Store, report: &mut Report) {
    let staged = store.staging_dir().and_then(|staging| staging::abandoned(&staging)).map_or(0, |names| names.len());
    let trashed = store.trash_dir().and_then(|trash| trash.items()).map_or(0, |items| items.len());
    if staged + trashed > 0 {
        report.findings.push(
            Finding::new(
                "leftovers",
                Severity::Advice,
                format!("interrupted commands left {staged} half-built and {trashed} half-removed things"),
                "they take space until the next command that may removes them",
            )
            .at("store/staging")
            .fixable(),
        );
    }
}

/// How near the objects that most files share are to the most links that an inode can have.
fn hottest(store: &Store, report: &mut Report) {
    let Ok(objects) = store.objects_dir() else { return };
    let Ok(manifests) = store.manifests() else { return };
    // Links come from trees: what one version has most of, all have.
    let newest = manifests.names().unwrap_or_default().into_iter().filter_map(|name| manifests.read(&name).ok());
    let Some(newest) = newest.max_by_key(|manifest| manifest.facts.import_number) else { return };
    let links = most_used(&newest).into_iter().filter_map(|key| look_at_links(&objects, &key)).max().unwrap_or(0);
    report.measured.push(Measured { name: "most_links", value: links.to_string() });
    if links > MOST_LINKS * 9 / 10 {
        report.findings.push(
            Finding::new(
                "links",
                Severity::Advice,
                format!("an object has {links} links"),
                "on ext4 an inode has 65,000 at most; after that the object gets a second inode, and takes its size again",
            )
            .remedy("tope-store gc, if old versions can go"),
        );
    }
}

fn look_at_links(objects: &Dir, key: &ObjectKey) -> Option<u64> {
    objects.try_stat(key.path()).ok().flatten().map(|stat| stat.links)
}

/// The objects that a version uses most often.
fn most_used(manifest: &Manifest) -> Vec<ObjectKey> {
    let mut uses: std::collections::HashMap<ObjectKey, u64> = std::collections::HashMap::new();
    let walked = manifest.walk(|_, entry, placement| {
        if let Some(key) = placement.and_then(|placement| manifest.object_key(entry, placement)) {
            *uses.entry(key).or_default() += 1;
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match walked {
        Ok(()) => {}
    }
    let mut uses: Vec<(u64, ObjectKey)> = uses.into_iter().map(|(key, count)| (count, key)).collect();
    uses.sort_unstable();
    uses.into_iter().rev().take(16).map(|(_, key)| key).collect()
}
