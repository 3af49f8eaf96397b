//! Archives made by the real programs, and by hand where no honest program would make them.

mod hostile;
mod mutated;
mod tars;
mod zips;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::process::Command;

use tope_store::archive::{Built, Format, Input, Limits, MemberKind, Mtime, Summary, TreeBuilder, read};
use tope_store::error::{Error, Result};
use tope_store::model::{ContentId, Metadata, Node};

use crate::support::{Outcome, Skipped, needs_program};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [hostile::tests(), mutated::tests(), tars::tests(), zips::tests()].into_iter().flatten().collect()
}

/// What a reading showed.
#[derive(Debug)]
struct Seen {
    /// One line for each entry of the tree: letter, mode, owner, path, and size or target.
    lines: Vec<String>,
    contents: BTreeMap<String, Vec<u8>>,
    mtimes: BTreeMap<String, Option<Mtime>>,
    xattrs: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    summary: Summary,
    built: Built,
}

impl Seen {
    fn warnings(&self) -> Vec<String> {
        self.summary.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.reason)).collect()
    }
}

fn see_input(input: Input, limits: &Limits) -> Result<Seen> {
    let mut builder = TreeBuilder::new(limits);
    let (mut contents, mut mtimes) = (BTreeMap::new(), BTreeMap::new());
    let summary = read(input, limits, &mut builder, &mut |member| {
        mtimes.insert(member.path.to_string(), member.mtime);
        let MemberKind::File { size, reader, .. } = member.kind else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| Error::io("read", "member", error))?;
        assert_eq!(bytes.len() as u64, size);
        let id = ContentId::of(&bytes);
        contents.insert(member.path.to_string(), bytes);
        Ok(Some(id))
    })?;
    let built = builder.finish()?;
    let (mut lines, mut xattrs) = (Vec::new(), BTreeMap::new());
    let walked = built.trees.walk(built.root, |path, entry| {
        let Metadata { mode, uid, gid, .. } = entry.metadata;
        let rest = match &entry.node {
            Node::File { size, .. } => format!(" {size}"),
            Node::Symlink { target } => format!(" -> {}", String::from_utf8_lossy(target)),
            Node::Directory { .. } => String::new(),
        };
        lines.push(format!("{} {mode:04o} {uid}:{gid} {path}{rest}", entry.node.letter()));
        let own = entry.metadata.xattrs.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), v.to_vec()));
        xattrs.insert(path.to_string(), own.collect());
        Ok::<(), ()>(())
    });
    assert_eq!(walked, Ok(Ok(())));
    Ok(Seen { lines, contents, mtimes, xattrs, summary, built })
}

fn see(bytes: &[u8]) -> Result<Seen> {
    see_within(bytes, &Limits::default())
}

fn see_within(bytes: &[u8], limits: &Limits) -> Result<Seen> {
    see_input(Input::Stream(Box::new(Cursor::new(bytes.to_vec()))), limits)
}

fn see_file(bytes: &[u8], limits: &Limits) -> Result<Seen> {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    see_input(Input::File(file), limits)
}

/// Runs a program in a directory and gives its output. Builds of one program differ in the options and inputs that they
/// support, so a program that fails counts as missing.
fn run(directory: &Path, command: &str) -> std::result::Result<Vec<u8>, Skipped> {
    for program in ["gzip", "mkfifo", "tar", "xz", "zip", "zstd"] {
        if command.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == program) {
            needs_program(program)?;
        }
    }
    let output = Command::new("sh").arg("-c").arg(command).current_dir(directory).output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(Skipped(format!("needs programs that can do this: {command} ({said})")));
    }
    Ok(output.stdout)
}

/// A tar made by hand, header by header.
#[derive(Default)]
struct Hand(Vec<u8>);

impl Hand {
    /// A member with this kind, name and target, and a size that need not be that of the data.
    fn put(mut self, kind: u8, name: &[u8], target: &[u8], size: u64, data: &[u8]) -> Self {
        self.header(kind, name, target, |header| header.set_size(size));
        self.data(data)
    }

    fn header(&mut self, kind: u8, name: &[u8], target: &[u8], change: impl FnOnce(&mut ::tar::Header)) {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(0);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..target.len()].copy_from_slice(target);
        old.linkflag = [kind];
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.put(b'0', name.as_bytes(), b"", data.len() as u64, data)
    }

    fn directory(self, name: &str) -> Self {
        self.put(b'5', name.as_bytes(), b"", 0, b"")
    }

    fn link(self, kind: u8, name: &str, target: &str) -> Self {
        self.put(kind, name.as_bytes(), target.as_bytes(), 0, b"")
    }

    fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 9).find(|length| rest + length.to_string().len() == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.put(kind, b"pax", b"", data.len() as u64, &data)
    }

    /// With its end marker.
    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
