//! What must hold whatever bytes a parser is given, one function for each parser. A violation is a panic.
//!
//! Two callers: the fuzz targets, and the test that replays the kept corpus in every ordinary test run.

#![allow(dead_code, clippy::disallowed_methods, reason = "each target uses one of them; files are made for the parser")]

use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::Duration;

use tope_store::archive::{Input, Limits, MemberKind, TreeBuilder, read};
use tope_store::config::Config;
use tope_store::error::Result;
use tope_store::fsys::Dir;
use tope_store::history::{History, State};
use tope_store::model::event::CHAIN_START;
use tope_store::model::format::Format;
use tope_store::model::glob::PathPatterns;
use tope_store::model::units::{exact_duration, exact_size, parse_duration, parse_size, readable_size};
use tope_store::model::{
    ContentId, Digest, EntryName, Event, Manifest, Node, ObjectKey, Role, Selector, Tree, TreePath, VersionName,
};

/// One check by its name.
pub type Check = (&'static str, fn(&[u8]));

/// All of them; each has a target and a directory in the corpus.
pub const ALL: [Check; 10] = [
    ("archive", archive),
    ("config", config),
    ("event", event),
    ("format", format),
    ("glob", glob),
    ("history", history),
    ("manifest", manifest),
    ("name", name),
    ("tree", tree),
    ("units", units),
];

/// An archive ends in a checked tree or in an error: no panic, no endless work, no more memory than its limits. What is
/// read as a stream and what is read as a file agree, and so do two readings of the same bytes.
///
/// The first byte decides whether the checksums of tar headers are mended before, without which nearly every input
/// would end at the first header.
pub fn archive(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let mut archive = rest.to_vec();
    if first & 1 == 1 {
        mend_tar_checksums(&mut archive);
    }
    let stream = || Input::Stream(Box::new(Cursor::new(archive.clone())));
    let (one, two) = (see(stream()), see(stream()));
    match (&one, &two) {
        (Ok(one), Ok(two)) => assert_eq!(one, two, "two readings differ"),
        (Err(one), Err(two)) => assert_eq!(one.to_string(), two.to_string(), "two readings fail differently"),
        _ => panic!("one reading fails and another does not"),
    }
    let mut file = scratch_file();
    std::io::Write::write_all(&mut file, &archive).expect("a scratch file");
    let zip = archive.starts_with(b"PK");
    match (see(Input::File(file)), one) {
        (Ok(file), Ok(stream)) => assert_eq!(file, stream, "read as a file it is something else"),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => assert!(zip, "as a file it is accepted, as a stream not: {error}"),
        (Err(error), Ok(_)) => panic!("as a stream it is accepted, as a file not: {error}"),
    }
}

/// The digest and the paths of an archive.
fn see(input: Input) -> Result<(String, Vec<String>)> {
    let limits = Limits {
        max_total_bytes: 1 << 20,
        max_entries: 2000,
        decoder_memory_bytes: 1 << 20,
        max_header_bytes: 64 << 10,
        max_path_bytes: 4096,
        max_depth: 200,
        max_held_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut builder = TreeBuilder::new(&limits);
    let _summary = read(input, &limits, &mut builder, &mut |member| {
        let path = member.path.as_bytes();
        assert!(!path.is_empty() || matches!(member.kind, MemberKind::Directory), "a file at the top");
        assert!(!path.starts_with(b"/") && !path.contains(&0), "a path that is not below the top");
        assert!(member.path.components().all(|part| part != b".." && part != b"." && !part.is_empty()));
        let MemberKind::File { size, reader, .. } = member.kind else { return Ok(None) };
        assert!(size <= limits.max_total_bytes, "a limit was passed");
        let mut content = Vec::new();
        reader
            .read_to_end(&mut content)
            .map_err(|error| tope_store::error::Error::source("the archive", error.to_string()))?;
        assert_eq!(content.len() as u64, size, "another size than declared, and no error");
        Ok(Some(ContentId::of(&content)))
    })?;
    let built = builder.finish()?;
    let mut paths = Vec::new();
    let walked = built.trees.walk(built.root, |path, _| {
        paths.push(path.to_string());
        Ok::<(), ()>(())
    });
    assert_eq!(walked, Ok(Ok(())), "the trees are not whole");
    Ok((format!("{:?}", built.root), paths))
}

/// Gives every block that looks like a tar header the checksum it should have.
fn mend_tar_checksums(archive: &mut [u8]) {
    let mut at = 0;
    while at + 512 <= archive.len() {
        let block = &mut archive[at..at + 512];
        if block.iter().all(|byte| *byte == 0) {
            at += 512;
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = block[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0_usize, |size, byte| (size * 8 + usize::from(byte - b'0')) & 0xf_ffff);
        at += 512 + size.next_multiple_of(512);
    }
}

fn scratch_file() -> std::fs::File {
    let path = scratch().join("archive");
    std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a scratch file")
}

/// A directory for this process, in memory where there is such a place.
fn scratch() -> std::path::PathBuf {
    use std::sync::LazyLock;
    static SCRATCH: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("tope-store-fuzz.{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        path
    });
    SCRATCH.clone()
}

/// Removes what the checks of this process made.
pub fn clean_up() {
    let _ = std::fs::remove_dir_all(scratch());
}

/// A configuration is taken or refused with a line that exists.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text) {
        Ok(config) => {
            let units: BTreeSet<&str> = config.services.iter().map(|service| service.unit.as_str()).collect();
            assert_eq!(units.len(), config.services.len(), "a unit twice");
            assert!(config.services.iter().all(|service| !service.unit.starts_with('-') && !service.name().is_empty()));
            assert!(config.root.is_none_or(|root| root.is_absolute()));
        }
        Err(error) => {
            assert!(error.line >= 1 && error.line <= text.lines().count().max(1) + 1, "line {}", error.line);
            assert!(!error.to_string().contains('\u{1b}'), "a terminal could be driven: {error}");
        }
    }
}

/// An event that is understood can be written, and reads back as the same; its line vouches for every byte. (One that is
/// not is never written again: its JSON is carried on.)
pub fn event(bytes: &[u8]) {
    let _ = Event::from_line(bytes, &CHAIN_START);
    let _ = Event::from_first_line(bytes);
    let _ = Event::salvage(bytes);
    let Ok(event) = Event::parse(bytes) else { return };
    if event.not_understood.is_some() {
        return;
    }
    let (line, chain) = event.to_line(&CHAIN_START);
    let (back, same) = Event::from_line(&line[..line.len() - 1], &CHAIN_START).expect("what was written is read");
    assert_eq!((back, same), (event, chain));
}

/// A format file is taken or refused, and what is taken keeps its meaning when written again.
pub fn format(bytes: &[u8]) {
    let Ok(format) = Format::parse(bytes) else { return };
    let again = Format::parse(format.to_text().as_bytes()).expect("what was written is read");
    assert_eq!(again.squash(), format.squash());
    assert_eq!(again.unwritable_because(), format.unwritable_because());
}

/// Patterns are taken or refused; matching ends, and a covered path lies at or below what covers it. Input: patterns by
/// line, and a path behind an empty line.
pub fn glob(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (patterns, path) = text.split_once("\n\n").unwrap_or((text, "a/b"));
    let lines: Vec<&str> = patterns.lines().take(8).collect();
    let Ok(patterns) = PathPatterns::new(&lines) else { return };
    let Ok(path) = TreePath::parse(path.as_bytes()) else { return };
    let covering = patterns.covering(&path);
    assert_eq!(covering.is_some(), patterns.covers(&path));
    if let Some(covering) = covering {
        assert!(path.starts_with(&covering) && patterns.matches(&covering));
    }
    if patterns.matches(&path) {
        assert!(patterns.covers(&path));
    }
}

/// A history is read to its end whatever it holds, the same each time, and what is trusted is chained without a gap.
pub fn history(bytes: &[u8]) {
    let path = scratch().join("store");
    std::fs::create_dir_all(&path).expect("a scratch directory");
    std::fs::write(path.join("history"), bytes).expect("a scratch file");
    let open = || History::new(Dir::open(&path).expect("it exists"));
    let history = open();
    let reading = history.read().expect("the system reads it");
    let again = open().read().expect("the system reads it");
    assert_eq!((&reading.state, reading.events.len()), (&again.state, again.events.len()));
    let trusted: Vec<u64> = reading.trusted().map(|event| event.seq).collect();
    if matches!(reading.state, State::Sound) {
        assert_eq!(trusted.len(), reading.events.len(), "a sound history with events that are not trusted");
    }
    let present = open().present().expect("the system reads it");
    if matches!(reading.state, State::Sound) {
        assert_eq!(present.marks, reading.marks, "two folds of one history");
    }
}

/// A manifest that is read is exactly what would be written for it.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        check_manifest(&manifest);
    }
    // Past the checksum, which no mutation gets right.
    if let Ok(manifest) = Manifest::decode_body(bytes) {
        assert_eq!(manifest.encode_body(), bytes, "two spellings of one manifest");
        check_manifest(&manifest);
    }
}

fn check_manifest(manifest: &Manifest) {
    let again = Manifest::decode(&manifest.encode()).expect("what was written is read");
    assert_eq!(again.encode_body(), manifest.encode_body());
    assert_eq!(again.digest(), manifest.digest());
    let walked = manifest.trees.walk(manifest.root, |path, entry| {
        assert!(path.components().all(|part| part != b".." && part != b"." && !part.is_empty()));
        if let Node::File { content, .. } = &entry.node {
            let _ = content;
        }
        Ok::<(), ()>(())
    });
    assert_eq!(walked, Ok(Ok(())));
}

/// Names are taken or refused; what is taken prints as what reads back, and cannot leave its directory.
pub fn name(bytes: &[u8]) {
    if let Ok(entry) = EntryName::new(bytes) {
        assert!(!bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0));
        assert_eq!(entry.as_bytes(), bytes);
    }
    if let Ok(path) = TreePath::parse(bytes) {
        assert_eq!(TreePath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert!(path.components().all(|part| part != b".." && part != b"."));
    }
    let slash = bytes.iter().position(|byte| *byte == b'/');
    if let Some(key) = slash.and_then(|at| ObjectKey::parse(&bytes[..at], &bytes[at + 1..])) {
        assert_eq!(key.path().as_bytes(), bytes, "two names of one object");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(version) = text.parse::<VersionName>() {
        assert_eq!(version.as_str().parse().as_ref(), Ok(&version));
        assert!(!version.as_str().contains('/') && !version.as_str().starts_with(['.', '-']));
        assert!(Role::ALL.iter().all(|role| role.to_string() != version.as_str()), "a version with a role's name");
        let _ = version.semver();
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    let _ = text.parse::<Selector>();
}

/// A tree that is read is exactly what would be written for it.
pub fn tree(bytes: &[u8]) {
    let Ok(tree) = Tree::decode(bytes) else { return };
    assert_eq!(tree.encode(), bytes, "two spellings of one tree");
    let names: Vec<&[u8]> = tree.entries().iter().map(|entry| entry.name.as_bytes()).collect();
    assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]));
}

/// Sizes and durations print as what reads back as the same value.
pub fn units(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_size(text) {
        Ok(size) => {
            assert_eq!(parse_size(&exact_size(size)), Ok(size));
            let _ = readable_size(size);
        }
        Err(error) => assert!(error.position() >= 1 && error.position() <= text.chars().count() + 1, "{error}"),
    }
    match parse_duration(text) {
        Ok(duration) => {
            assert_eq!(parse_duration(&exact_duration(duration)), Ok(duration));
            assert!(duration <= Duration::from_millis(u64::MAX));
        }
        Err(error) => assert!(error.position() >= 1 && error.position() <= text.chars().count() + 1, "{error}"),
    }
}
