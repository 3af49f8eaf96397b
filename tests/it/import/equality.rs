//! One tree, one digest: from a directory or from any archive of it, on any file system; and what is materialised
//! equals the source in everything but the write bits.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{arguments, assert_no_litter, import, shell};
use crate::support::image::{Image, Kind};
use crate::support::{Fixture, Outcome, needs_program, needs_root, tree};

tests![
    one_tree_has_one_digest_on_every_file_system,
    formats_without_attributes_have_the_digest_of_a_tree_without_any,
    a_zip_has_the_digest_of_its_tree,
    the_tops_own_metadata_is_no_part_of_the_digest,
];

/// A tree with everything that a version can hold. Needs root.
fn everything(top: &Path) {
    tree::release(top, 1);
    tree::file(top.join("caps"), "binary");
    tree::file(top.join("hard/one"), "linked");
    tree::file(top.join("hard/z-empty"), "");
    let sparse = std::fs::File::create(top.join("sparse")).unwrap();
    sparse.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"island", 5 << 20).unwrap();
    tree::file(top.join("large"), (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(2 << 20).collect::<Vec<u8>>());
    for name in [&b"new\nline"[..], b"\xff\xfe", &[b'n'; 255], b"-dash", b" space ", b"back\\slash", b"eq=ual"] {
        tree::file(top.join("weird").join(std::ffi::OsStr::from_bytes(name)), name);
    }
    tree::file(top.join("x".repeat(150)).join("y".repeat(150)).join("z"), "long path");
    shell(
        top,
        "ln hard/one hard/two; ln hard/one other-name; ln hard/z-empty hard/a-empty
         ln -s \"$(printf '%0200d' 7)\" long-link; ln -s ../../out leaves
         chown 1234:4321 services/device-api/settings.toml; chown -h 77:88 lib/common.so.1
         chown 1000:1000 empty; chown 4000000:4000001 lib/lock
         install -m 4755 /dev/null setuid; echo u >setuid; chmod 4755 setuid; chmod 2750 bin; chmod 1777 empty
         echo a >ro; chmod 0400 ro; echo b >none; chmod 0 none; mkdir shut; echo c >shut/c; chmod 0500 shut
         setfattr -n user.comment -v 'plain' caps; setfattr -n user.empty ro; setfattr -n user.dir -v x empty
         setfattr -n user.binary -v 0x00ff0a3d sparse
         setcap cap_net_raw+ep caps
         setfacl -m u:1234567:rwx,g:1234599:r caps; setfacl -m u:1234507:rw -m d:g:1234508:rx services
         touch -d '1970-01-01 00:00:00 UTC' ro; touch -d '2001-02-03 04:05:06.789' large",
    );
}

fn xattrs(path: &Path, seal: bool) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let recorded = |name: &&[u8]| {
        name.starts_with(b"user.") || *name == b"security.capability" || name.starts_with(b"system.posix_acl_")
    };
    let names = names[..length].split(|byte| *byte == 0).filter(recorded);
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            if seal && name == b"system.posix_acl_access" {
                value[4..].chunks_exact_mut(8).for_each(|entry| entry[2] &= !2);
            }
            (name.to_vec(), value)
        })
        .collect()
}

/// Contents, kinds, modes, owners, targets, attributes.
#[track_caller]
fn assert_equal(source: &Path, materialised: &Path) {
    tree::assert_same(source, materialised);
    for item in walkdir::WalkDir::new(source).min_depth(1) {
        let item = item.unwrap();
        let other = materialised.join(item.path().strip_prefix(source).unwrap());
        let sealed = item.file_type().is_file();
        assert_eq!(xattrs(item.path(), sealed), xattrs(&other, false), "{}", item.path().display());
        let stat = std::fs::symlink_metadata(&other).unwrap();
        if sealed {
            assert_eq!(stat.nlink() > 1, stat.len() > 0, "{}: objects are linked, empty files never", other.display());
            assert_ne!(stat.mtime(), 0);
        }
    }
}

const GNU: &str = "tar --xattrs --xattrs-include='*' --acls --numeric-owner --sort=name";

fn one_tree_has_one_digest_on_every_file_system() -> Outcome {
    needs_root()?;
    for program in ["setfacl", "setcap", "setfattr", "xz", "zstd"] {
        needs_program(program)?;
    }
    let mut digests = BTreeSet::new();
    for kind in Kind::ALL {
        let image = Image::new(kind, if kind == Kind::Xfs { 320 } else { 200 })?;
        let fixture = Fixture::in_dir(image.path(""));
        let source = fixture.beside("source");
        everything(&source);
        let directory = import(&fixture, &source, "1.0", &[]).ok().json();
        assert_equal(&source, &fixture.path("versions/v1.0"));
        digests.insert(directory["digest"].to_string());
        let archives = [
            format!("{GNU} --format=posix -cf - ."),
            format!("{GNU} --format=posix --sparse -czf - ."),
            format!("{GNU} --format=posix --sparse --sparse-version=0.1 -cJf - ."),
            format!("{GNU} --format=posix --sparse --sparse-version=0.0 -cf - . | zstd -c"),
            // Without ./ before the names, directories last.
            format!(
                "find . -mindepth 1 -print0 | sort -rz | sed -z 's,^\\./,,' | {GNU} --no-recursion --null -T - -cf -"
            ),
        ];
        // The formats are the same everywhere; the file systems need one each.
        let archives = if kind == Kind::Ext4 { &archives[..] } else { &archives[1..2] };
        for (number, archive) in archives.iter().enumerate() {
            let bytes = shell(&source, archive);
            let version = format!("2.{number}");
            let streamed = fixture.run_with_input(&arguments("-", &version, &[]), &bytes).ok().json();
            for same in ["digest", "files", "total_bytes", "directories", "symlinks"] {
                assert_eq!(streamed[same], directory[same], "{archive}: {same}");
            }
            assert_eq!(streamed["new_objects"], 0, "{archive}");
            assert_equal(&source, &fixture.path(format!("versions/v{version}")));
            let file = fixture.beside("archive");
            std::fs::write(&file, &bytes).unwrap();
            let from_file = import(&fixture, &file, &version, &[]).ok().json();
            assert_eq!((&from_file["already_there"], &from_file["digest"]), (&true.into(), &streamed["digest"]));
        }
        // Into an empty store as well: the order of members decides nothing.
        std::fs::create_dir(image.path("other")).unwrap();
        let other = Fixture::in_dir(image.path("other"));
        let bytes = shell(&source, &format!("{GNU} --format=posix --sparse -cf - ."));
        let streamed = other.run_with_input(&arguments("-", "1.0", &[]), &bytes).ok().json();
        assert_eq!(streamed["digest"], directory["digest"]);
        for count in ["files", "directories", "symlinks", "total_bytes", "new_objects", "new_bytes", "linked_files"] {
            assert_eq!(streamed[count], directory[count], "{count}");
        }
        assert_equal(&source, &other.path("versions/v1.0"));
        assert_no_litter(&other);
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    Ok(())
}

fn formats_without_attributes_have_the_digest_of_a_tree_without_any() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    tree::file(source.join("n".repeat(90)).join("m".repeat(90)), "a path that needs a prefix");
    shell(&source, "ln bin/web-server twin; chmod 0640 lib/lock");
    let directory = import(&fixture, &source, "1.0", &[]).ok().json();
    for format in ["gnu", "oldgnu", "ustar", "posix"] {
        let bytes = shell(&source, &format!("tar --numeric-owner --format={format} -cf - ."));
        let report = fixture.run_with_input(&arguments("-", "1.0", &[]), &bytes).ok().json();
        assert_eq!((&report["already_there"], &report["digest"]), (&true.into(), &directory["digest"]), "{format}");
    }
    Ok(())
}

fn a_zip_has_the_digest_of_its_tree() -> Outcome {
    needs_root()?;
    needs_program("zip")?;
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    shell(&source, "zip -qry ../a.zip .");
    let from_zip = import(&fixture, fixture.beside("a.zip"), "1.0", &[]).ok().json();
    // A zip knows no owners: everything is root's.
    let directory = import(&fixture, &source, "1.1", &["--chown", "0:0"]).ok().json();
    assert_eq!(from_zip["digest"], directory["digest"]);
    tree::assert_same(&source, &fixture.path("versions/v1.0"));
    Ok(())
}

fn the_tops_own_metadata_is_no_part_of_the_digest() -> Outcome {
    let fixture = Fixture::new();
    let source = fixture.beside("source");
    tree::release(&source, 1);
    let first = import(&fixture, &source, "1.0", &[]).ok().json();
    shell(&source, "chmod 2700 .; touch -d 2001-01-01 . lib/common.so");
    let second = import(&fixture, &source, "1.1", &[]).ok().json();
    assert_eq!(first["digest"], second["digest"]);
    let mode = std::fs::metadata(fixture.path("versions/v1.1")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o755);
    Ok(())
}
