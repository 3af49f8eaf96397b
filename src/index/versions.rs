//! Versions: what manifests say about themselves.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Params, Row, params};

use super::failure::{failed, malformed};
use super::{Reader, Writer, number, unsigned};
use crate::error::Result;
use crate::fsys::Stat;
use crate::model::codec::Reader as Decoder;
use crate::model::{
    Anchor, Digest, Extensions, Facts, Manifest, Ownership, Source, SourceKind, TreeId, TreePath, VersionName,
};

const INSERT_VERSION: &str = "INSERT INTO versions
    (import_number, name, tree, imported_at, clock_synchronised, note, source_kind, source_path, ownership,
     files, directories, symlinks, total_bytes, manifest_size, manifest_mtime_ns, manifest_inode,
     anchor_event, anchor_chain, extensions)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
const INSERT_LABEL: &str = "INSERT INTO labels (version, key, value) VALUES (?1, ?2, ?3)";
const INSERT_SHARED: &str = "INSERT INTO shared_paths (version, path) VALUES (?1, ?2)";
const LABELS: &str = "SELECT version, key, value FROM labels";
const SHARED: &str = "SELECT version, path FROM shared_paths ORDER BY version, path";

macro_rules! select_versions {
    ($rest:literal) => {
        concat!(
            "SELECT v.import_number, v.name, t.hash, v.imported_at, v.clock_synchronised, v.note, v.source_kind, ",
            "v.source_path, v.ownership, v.files, v.directories, v.symlinks, v.total_bytes, ",
            "v.manifest_size, v.manifest_mtime_ns, v.manifest_inode, v.anchor_event, v.anchor_chain, v.extensions ",
            "FROM versions AS v JOIN trees AS t ON t.id = v.tree ",
            $rest,
            " ORDER BY v.import_number"
        )
    };
}

const ALL: &str = select_versions!("");
const BY_NAME: &str = select_versions!("WHERE v.name = ?1");
const BY_DIGEST: &str = select_versions!("WHERE t.hash BETWEEN ?1 AND ?2");
const NEWEST: &str = "SELECT max(import_number) FROM versions";

/// By what a manifest file is recognised without being read: another file in its place differs in one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ManifestFile {
    /// Its length.
    pub size: u64,
    /// Its modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its inode.
    pub inode: u64,
}

impl From<&Stat> for ManifestFile {
    fn from(stat: &Stat) -> Self {
        Self { size: stat.size, mtime_ns: nanoseconds(stat.mtime), inode: stat.inode }
    }
}

/// A time as one number, to be compared only: a time that no 64 bits hold wraps around.
pub(super) fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds.into())
}

/// What there is in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Regular files, empty ones too.
    pub files: u64,
    /// Directories below the top.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Sizes of all files together.
    pub total_bytes: u64,
}

/// One version as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedVersion {
    /// The facts of its manifest.
    pub facts: Facts,
    /// Its digest.
    pub digest: Digest,
    /// What there is in it.
    pub counts: Counts,
    /// The manifest's extensions.
    pub extensions: Extensions,
    /// The manifest file that this was read from.
    pub manifest_file: ManifestFile,
}

impl Reader<'_> {
    /// All versions, oldest import first.
    pub fn versions(&self) -> Result<Vec<IndexedVersion>> {
        self.select(ALL, [])
    }

    /// The version of this name.
    pub fn version(&self, name: &VersionName) -> Result<Option<IndexedVersion>> {
        self.select(BY_NAME, [name.as_str()]).map(|mut found| found.pop())
    }

    /// The versions whose digest begins with these hexadecimal digits (at most 64, without `t1:`), oldest first.
    /// Text that is not hexadecimal begins no digest.
    pub fn versions_by_digest(&self, prefix: &str) -> Result<Vec<IndexedVersion>> {
        let bound = |pad: &str| {
            let missing = 64_usize.checked_sub(prefix.len())?;
            TreeId::from_hex([prefix, &pad.repeat(missing)].concat())
        };
        match (bound("0"), bound("f")) {
            (Some(low), Some(high)) => self.select(BY_DIGEST, [low.as_bytes(), high.as_bytes()]),
            _ => Ok(Vec::new()),
        }
    }

    /// The highest import number among published versions. (The history may know a higher one.)
    pub fn highest_import(&self) -> Result<Option<u64>> {
        let found: rusqlite::Result<Option<i64>> = self.transaction.query_row(NEWEST, [], |row| row.get(0));
        Ok(found.map_err(failed("look up versions"))?.and_then(|found| u64::try_from(found).ok()))
    }

    fn select(&self, sql: &str, parameters: impl Params) -> Result<Vec<IndexedVersion>> {
        let action = "look up versions";
        let select = || {
            let mut statement = self.transaction.prepare_cached(sql)?;
            statement.query_map(parameters, version)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let found: Option<Vec<IndexedVersion>> = select().map_err(failed(action))?.into_iter().collect();
        let mut found = found.ok_or_else(|| malformed(action, "a version makes no sense"))?;
        if self.lists(&mut found).map_err(failed(action))? {
            Ok(found)
        } else {
            Err(malformed(action, "a shared path makes no sense"))
        }
    }

    /// Fills in what has tables of its own. These are small, so they are read whole. `false` if a row makes no sense.
    fn lists(&self, versions: &mut [IndexedVersion]) -> rusqlite::Result<bool> {
        let by_number: HashMap<u64, usize> =
            versions.iter().enumerate().map(|(at, version)| (version.facts.import_number, at)).collect();
        let mut statement = self.transaction.prepare_cached(LABELS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(at) = by_number.get(&unsigned(row, 0)?) {
                versions[*at].facts.labels.insert(row.get(1)?, row.get(2)?);
            }
        }
        let mut statement = self.transaction.prepare_cached(SHARED)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Ok(path) = TreePath::parse(row.get_ref(1)?.as_blob()?) else { return Ok(false) };
            if let Some(at) = by_number.get(&unsigned(row, 0)?) {
                versions[*at].facts.shared.push(path);
            }
        }
        Ok(true)
    }
}

/// A version from a row, labels and shared paths still missing; `None` if the row makes no sense.
fn version(row: &Row<'_>) -> rusqlite::Result<Option<IndexedVersion>> {
    let name = row.get_ref(1)?.as_str()?.parse().ok();
    let kind = SourceKind::of_name(row.get_ref(6)?.as_str()?);
    let ownership = parse_ownership(row.get_ref(8)?.as_str()?);
    let extensions = Extensions::decode(&mut Decoder::new(row.get_ref(18)?.as_blob()?)).ok();
    let (Some(name), Some(kind), Some(ownership), Some(extensions)) = (name, kind, ownership, extensions) else {
        return Ok(None);
    };
    Ok(Some(IndexedVersion {
        facts: Facts {
            name,
            import_number: unsigned(row, 0)?,
            anchor: Anchor { number: unsigned(row, 16)?, chain: row.get(17)? },
            imported_at: row.get(3)?,
            clock_synchronised: row.get(4)?,
            note: row.get(5)?,
            labels: BTreeMap::new(),
            source: Source { kind, path: row.get(7)? },
            ownership,
            shared: Vec::new(),
            // Of interest only to those who have the tree before them, and they read the manifest.
            private_empty: Vec::new(),
        },
        digest: Digest(TreeId::from_bytes(row.get(2)?)),
        counts: Counts {
            files: unsigned(row, 9)?,
            directories: unsigned(row, 10)?,
            symlinks: unsigned(row, 11)?,
            total_bytes: unsigned(row, 12)?,
        },
        extensions,
        manifest_file: ManifestFile {
            size: unsigned(row, 13)?,
            mtime_ns: row.get(14)?,
            inode: row.get::<_, i64>(15)?.cast_unsigned(),
        },
    }))
}

/// How an ownership stands in the tables.
pub(super) fn ownership_text(ownership: Ownership) -> String {
    match ownership {
        Ownership::AsRecorded => "as-recorded".to_owned(),
        Ownership::Squash { uid, gid } => format!("{uid}:{gid}"),
    }
}

pub(super) fn parse_ownership(text: &str) -> Option<Ownership> {
    if text == "as-recorded" {
        return Some(Ownership::AsRecorded);
    }
    let (uid, gid) = text.split_once(':')?;
    Some(Ownership::Squash { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

impl Writer<'_> {
    /// Takes in a published version with its trees and objects. Trees that are known are skipped with everything
    /// below them, objects of unchanged trees too.
    ///
    /// # Errors
    ///
    /// [`Error::Index`](crate::error::Error::Index); [damage](super::is_damage()) if there is a version of that name
    /// or import number already: the index does not mirror the store then.
    pub fn insert_version(&mut self, manifest: &Manifest, file: &ManifestFile) -> Result<()> {
        let action = "take in a version";
        let tree = self.add_tree_rows(&manifest.trees, &manifest.root)?;
        let usage = super::objects::Usage::of(manifest).ok_or_else(|| malformed(action, "a manifest is not whole"))?;
        let insert = || {
            let version = self.insert_version_row(manifest, tree, &usage.counts, file)?;
            usage.register(&self.transaction, version, tree, manifest.facts.ownership)
        };
        insert().map_err(failed(action))
    }

    fn insert_version_row(
        &self,
        manifest: &Manifest,
        tree: i64,
        counts: &Counts,
        file: &ManifestFile,
    ) -> rusqlite::Result<i64> {
        let Facts {
            name,
            import_number,
            anchor,
            imported_at,
            clock_synchronised,
            note,
            labels,
            source,
            ownership,
            shared,
            ..
        } = &manifest.facts;
        let mut extensions = Vec::new();
        manifest.extensions.encode(&mut extensions);
        let version = number(*import_number)?;
        self.transaction.prepare_cached(INSERT_VERSION)?.execute(params![
            version,
            name.as_str(),
            tree,
            imported_at,
            clock_synchronised,
            note,
            source.kind.name(),
            &source.path,
            ownership_text(*ownership),
            number(counts.files)?,
            number(counts.directories)?,
            number(counts.symlinks)?,
            number(counts.total_bytes)?,
            number(file.size)?,
            file.mtime_ns,
            file.inode.cast_signed(),
            number(anchor.number)?,
            anchor.chain,
            extensions,
        ])?;
        let mut statement = self.transaction.prepare_cached(INSERT_LABEL)?;
        for (key, value) in labels {
            statement.execute((version, key, value))?;
        }
        let mut statement = self.transaction.prepare_cached(INSERT_SHARED)?;
        for path in shared {
            statement.execute((version, path.as_bytes()))?;
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{digest_of, index_of, manifest, manifest_file, name};
    use super::super::{Index, is_damage};
    use super::*;

    fn indexed(manifest: &Manifest, counts: Counts) -> IndexedVersion {
        IndexedVersion {
            facts: manifest.facts.clone(),
            digest: digest_of(manifest),
            counts,
            extensions: manifest.extensions.clone(),
            manifest_file: manifest_file(manifest.facts.import_number),
        }
    }

    #[test]
    fn versions_read_back_whole_and_in_import_order() {
        let mut first = manifest("v9", 1, &[("a", "1"), ("b/c*", "22"), ("b/d>", "c"), ("empty", "")]);
        first.facts.ownership = Ownership::Squash { uid: 1000, gid: u32::MAX };
        let second = manifest("v1", 2, &[("a", "1")]);
        let mut index = index_of([&second, &first]);
        let reader = index.read().unwrap();
        let expected = [
            indexed(&first, Counts { files: 3, directories: 1, symlinks: 1, total_bytes: 3 }),
            indexed(&second, Counts { files: 1, directories: 0, symlinks: 0, total_bytes: 1 }),
        ];
        assert_eq!(reader.versions().unwrap(), expected);
        assert_eq!(reader.version(&name("v9")).unwrap().as_ref(), Some(&expected[0]));
        assert_eq!(reader.version(&name("v3")).unwrap(), None);
        assert_eq!(reader.highest_import().unwrap(), Some(2));
        for length in [0, 1, 7, 64] {
            let prefix = &first.root.to_hex()[..length];
            let found = reader.versions_by_digest(prefix).unwrap();
            assert!(found.contains(&expected[0]), "{length}");
            assert_eq!(found.len(), if length == 0 { 2 } else { 1 }, "{length}");
        }
        for wrong in ["g", "ABCD", &"0".repeat(65)] {
            assert_eq!(reader.versions_by_digest(wrong).unwrap(), [], "{wrong}");
        }
    }

    #[test]
    fn a_version_that_is_there_already_is_damage_and_undoes_the_whole_transaction() {
        let first = manifest("v1", 1, &[("a", "1")]);
        let mut index = index_of([&first]);
        let before = index.read().unwrap().totals().unwrap();
        for again in [manifest("v1", 2, &[("b", "2")]), manifest("v2", 1, &[("b", "2")])] {
            let error = index.write().unwrap().insert_version(&again, &manifest_file(2)).unwrap_err();
            assert!(is_damage(&error), "{error:?}");
        }
        assert_eq!(index.read().unwrap().totals().unwrap(), before);
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let mut index = Index::in_memory().unwrap();
        let mut writer = index.write().unwrap();
        writer.insert_version(&manifest("v1", 1, &[("a", "1")]), &manifest_file(1)).unwrap();
        drop(writer);
        assert_eq!(index.read().unwrap().versions().unwrap(), []);
    }

    #[test]
    fn a_manifest_that_is_not_whole_is_an_error() {
        let mut short = manifest("v1", 1, &[("a", "1")]);
        short.placements.clear();
        let mut index = Index::in_memory().unwrap();
        assert!(index.write().unwrap().insert_version(&short, &manifest_file(1)).is_err());
    }

    #[test]
    fn ownerships_read_back_from_their_text() {
        for ownership in [Ownership::AsRecorded, Ownership::Squash { uid: 0, gid: u32::MAX }] {
            assert_eq!(parse_ownership(&ownership_text(ownership)), Some(ownership));
        }
        assert_eq!(parse_ownership("root:"), None);
    }
}
