//! Real releases: six consecutive ones of a published application with some 19,000 files each, from the package
//! registry by way of its ordinary client.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Fixture, Outcome, Skipped, needs_program, tree};

tests![six_releases_take_little_more_than_their_unique_contents];

/// A package with many files and the releases that are imported, oldest first.
const PACKAGE: &str = "ansible";
const RELEASES: [&str; 6] = ["10.0.1", "10.1.0", "10.2.0", "10.3.0", "10.4.0", "10.5.0"];

/// Downloads and unpacks a release below the build directory, once.
fn release(version: &str) -> Result<PathBuf, Skipped> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("releases");
    let unpacked = cache.join(version);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let partial = cache.join(format!("{version}.partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial).unwrap();
    let wanted = format!("{PACKAGE}=={version}");
    let downloaded = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(&partial)
        .arg(wanted)
        .output();
    let lacks = |what: String| Skipped(format!("needs {PACKAGE} {version} from the package registry: {what}"));
    let downloaded = downloaded.map_err(|error| lacks(error.to_string()))?;
    if !downloaded.status.success() {
        return Err(lacks(String::from_utf8_lossy(&downloaded.stderr).trim().to_owned()));
    }
    let wheel = std::fs::read_dir(&partial).unwrap().next().unwrap().unwrap().path();
    let contents = partial.join("contents");
    let status = Command::new("unzip").arg("-q").arg(&wheel).arg("-d").arg(&contents).status().unwrap();
    assert!(status.success(), "unzip {}", wheel.display());
    // Whoever is faster wins; the other's copy is as good.
    let _ = std::fs::rename(&contents, &unpacked);
    let _ = std::fs::remove_dir_all(&partial);
    Ok(unpacked)
}

fn allocated(top: &Path) -> u64 {
    let mut seen = HashSet::new();
    let items = walkdir::WalkDir::new(top).into_iter().map(|item| item.unwrap().metadata().unwrap());
    items.filter(|stat| seen.insert((stat.dev(), stat.ino()))).map(|stat| stat.blocks() * 512).sum()
}

/// Blocks of every distinct content and mode, and of every directory: what no store can go below.
fn ideal(sources: &[PathBuf]) -> u64 {
    let (mut contents, mut directories) = (HashMap::new(), 0);
    for item in sources.iter().flat_map(walkdir::WalkDir::new) {
        let item = item.unwrap();
        let stat = item.metadata().unwrap();
        if stat.is_dir() {
            directories += stat.blocks() * 512;
        } else if stat.is_file() && stat.len() > 0 {
            let hash = blake3::hash(&std::fs::read(item.path()).unwrap());
            contents.insert((hash, stat.mode() & 0o7555), stat.blocks() * 512);
        }
    }
    contents.values().sum::<u64>() + directories
}

fn six_releases_take_little_more_than_their_unique_contents() -> Outcome {
    needs_program("python3")?;
    needs_program("unzip")?;
    let sources = RELEASES.iter().map(|version| release(version)).collect::<Result<Vec<_>, _>>()?;
    let fixture = Fixture::new();
    for (version, source) in RELEASES.iter().zip(&sources) {
        let arguments = ["import".as_ref(), source.as_os_str(), "--version".as_ref(), version.as_ref()];
        let report = fixture.json(&arguments);
        assert!(report["files"].as_u64().unwrap() > 12_000, "{report}");
        tree::assert_same(source, &fixture.path(format!("versions/v{version}")));
    }
    let objects: HashSet<u64> = walkdir::WalkDir::new(fixture.path("store/objects"))
        .into_iter()
        .map(|item| item.unwrap().metadata().unwrap().ino())
        .collect();
    for item in walkdir::WalkDir::new(fixture.path("versions")) {
        let item = item.unwrap();
        let stat = item.metadata().unwrap();
        if stat.is_file() && stat.len() > 0 && ![".switched", ".identity"].iter().any(|own| item.file_name() == *own) {
            assert!(objects.contains(&stat.ino()), "{} does not share its inode with the store", item.path().display());
        }
    }
    let (taken, ideal) = (allocated(&fixture.root()), ideal(&sources));
    assert!(taken as f64 <= ideal as f64 * 1.05, "{taken} bytes on the medium instead of {ideal}");
    Ok(())
}
