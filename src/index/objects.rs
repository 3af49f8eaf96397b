//! Objects: which keys published versions refer to.
//!
//! A key follows from a file's content and recorded metadata and from the version's ownership; so equal trees of
//! versions of one ownership use equal objects, and an unchanged tree costs an import one look (`trees.registered`).
//! The exception is a file whose modification time is part of its key. That depends on the version, not on the tree,
//! so trees that hold such a file are listed per version, with all the keys that they use.

use std::collections::{HashMap, HashSet};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, Row};

use super::failure::{failed, malformed};
use super::trees::RowId;
use super::versions::{Counts, ownership_text};
use super::{Index, Reader, number, optional, unsigned};
use crate::error::Result;
use crate::model::{
    ContentId, Entry, InodeClass, Manifest, Node, ObjectKey, Ownership, Placement, PlacementKind, Sealed, TreeId,
};
use crate::object::{Published, Recorded};

const REGISTERED: &str = "SELECT id, registered FROM trees WHERE hash = ?1";
const SET_REGISTERED: &str = "UPDATE trees SET registered = ?2 WHERE id = ?1";
// What two trees both have of one base they share.
const REGISTERED_SIBLING: &str = "SELECT other.id FROM trees AS own JOIN trees AS other ON other.base = own.base
    WHERE own.id = ?1 AND other.id <> ?1 AND other.registered = ?2 ORDER BY other.id DESC LIMIT 1";
const NOT_SHARED: &str = "SELECT name FROM entries WHERE tree IN (?1, ?2)
    UNION ALL SELECT name FROM hidden_names WHERE tree = ?2";
// Another version of the same trees, all of which are registered.
const SAME_VERSION: &str =
    "SELECT 1 FROM versions AS v WHERE v.tree = ?1 AND v.ownership = ?2 AND v.import_number <> ?3
    AND NOT EXISTS (SELECT 1 FROM pinned_trees AS p WHERE p.version = v.import_number)";
const CLASS: &str = "SELECT id FROM classes WHERE name = ?1";
const CLASSES: &str = "SELECT id, name FROM classes";
const INSERT_CLASS: &str = "INSERT INTO classes (name) VALUES (?1)";
// The first recorded time stays: it is the one that the inode was made with.
const INSERT_OBJECT: &str = "INSERT INTO objects (content, class, size, mtime_seconds, mtime_nanoseconds)
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (content, class) DO NOTHING";
const INSERT_PINNED_TREE: &str = "INSERT INTO pinned_trees (version, tree) VALUES (?1, ?2)";
const INSERT_PINNED_OBJECT: &str = "INSERT INTO pinned_objects (version, content, class) VALUES (?1, ?2, ?3)
    ON CONFLICT (version, content, class) DO NOTHING";
const OBJECT: &str = "SELECT o.size, o.mtime_seconds, o.mtime_nanoseconds FROM objects AS o
    JOIN classes AS c ON c.id = o.class WHERE o.content = ?1 AND c.name = ?2";
const OBJECTS: &str = "SELECT content, class, size, mtime_seconds, mtime_nanoseconds FROM objects
    ORDER BY content, class";

/// A class as it ends an object's name.
fn class_text(class: &InodeClass) -> String {
    let key = ObjectKey { content: ContentId::from_bytes([0; 32]), class: class.clone() };
    // 62 digits and a dot stand before it.
    key.file_name().split_off(63)
}

fn parse_class(text: &str) -> Option<InodeClass> {
    let name = ["0".repeat(62).as_str(), ".", text].concat();
    ObjectKey::parse(b"00", name.as_bytes()).map(|key| key.class)
}

/// Numbers of inode classes, given out as they are met.
#[derive(Default)]
pub(super) struct Classes(HashMap<InodeClass, i64>);

impl Classes {
    fn id(&mut self, connection: &Connection, class: InodeClass) -> rusqlite::Result<i64> {
        if let Some(id) = self.0.get(&class) {
            return Ok(*id);
        }
        let text = class_text(&class);
        let known = optional(connection.prepare_cached(CLASS)?.query_row([&text], |row| row.get(0)))?;
        let id = match known {
            Some(id) => id,
            None => connection.prepare_cached(INSERT_CLASS)?.insert([&text])?,
        };
        self.0.insert(class, id);
        Ok(id)
    }

    /// All classes of the index; `None` if one makes no sense.
    pub(super) fn all(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached(CLASSES)?;
        let mut rows = statement.query([])?;
        let mut classes = HashMap::new();
        while let Some(row) = rows.next()? {
            let Some(class) = parse_class(row.get_ref(1)?.as_str()?) else { return Ok(None) };
            classes.insert(class, row.get(0)?);
        }
        Ok(Some(Self(classes)))
    }

    /// The number of a class that is known.
    pub(super) fn get(&self, class: &InodeClass) -> Option<i64> {
        self.0.get(class).copied()
    }
}

/// The files that lie directly in one directory of a version.
type Files<'m> = Vec<(&'m Entry, Placement)>;

/// What a version uses, directory by directory.
pub(super) struct Usage<'m> {
    manifest: &'m Manifest,
    pub(super) counts: Counts,
    /// Directories whose keys follow from the tree; each tree once.
    plain: Vec<(TreeId, Files<'m>)>,
    /// Directories with a pinned file. A tree may be here more than once, with different times.
    pinned: Vec<(TreeId, Files<'m>)>,
}

/// One directory on the way down.
struct Level<'m> {
    tree: TreeId,
    entries: slice::Iter<'m, Entry>,
    files: Files<'m>,
}

impl<'m> Usage<'m> {
    /// Walks a manifest; `None` if it lacks a tree or a placement.
    pub(super) fn of(manifest: &'m Manifest) -> Option<Self> {
        let mut usage = Self { manifest, counts: Counts::default(), plain: Vec::new(), pinned: Vec::new() };
        let mut placements = manifest.placements.iter();
        let level = |tree: TreeId| {
            Some(Level { tree, entries: manifest.trees.get(&tree)?.entries().iter(), files: Vec::new() })
        };
        let mut seen = HashSet::new();
        let mut stack = vec![level(manifest.root)?];
        while let Some(top) = stack.last_mut() {
            let Some(entry) = top.entries.next() else {
                if let Some(done) = stack.pop() {
                    usage.finish(done, &mut seen);
                }
                continue;
            };
            match &entry.node {
                Node::File { size, .. } => {
                    usage.counts.files += 1;
                    usage.counts.total_bytes = usage.counts.total_bytes.saturating_add(*size);
                    if *size > 0 {
                        top.files.push((entry, *placements.next()?));
                    }
                }
                Node::Directory { tree } => {
                    usage.counts.directories += 1;
                    stack.push(level(*tree)?);
                }
                Node::Symlink { .. } => usage.counts.symlinks += 1,
            }
        }
        let pinned: HashSet<TreeId> = usage.pinned.iter().map(|(tree, _)| *tree).collect();
        if !pinned.is_empty() {
            // A tree that is pinned at one place is listed for all places.
            let (listed, plain) = usage.plain.into_iter().partition(|(tree, _)| pinned.contains(tree));
            usage.plain = plain;
            usage.pinned.extend::<Vec<_>>(listed);
        }
        Some(usage)
    }

    fn finish(&mut self, level: Level<'m>, seen: &mut HashSet<TreeId>) {
        if level.files.iter().any(|(_, placement)| placement.kind == PlacementKind::PinnedMtime) {
            self.pinned.push((level.tree, level.files));
        } else if seen.insert(level.tree) {
            self.plain.push((level.tree, level.files));
        }
    }

    /// Records the objects of this version, whose root tree has this row.
    pub(super) fn register(
        &self,
        connection: &Connection,
        version: i64,
        root: RowId,
        ownership: Ownership,
    ) -> rusqlite::Result<()> {
        let ownership = ownership_text(ownership);
        let same = connection.prepare_cached(SAME_VERSION)?.exists((root, &ownership, version))?;
        let plain = if same { [].as_slice() } else { &self.plain };
        let mut classes = Classes::default();
        let mut rows = Vec::new();
        let mut registered = connection.prepare_cached(REGISTERED)?;
        let mut set_registered = connection.prepare_cached(SET_REGISTERED)?;
        for (tree, files) in plain {
            let (id, known) = registered_for(&mut registered, tree)?;
            if known.as_ref() == Some(&ownership) {
                continue;
            }
            let new = names_to_register(connection, id, &ownership)?;
            let is_new = |entry: &Entry| new.as_ref().is_none_or(|new| new.contains(entry.name.as_bytes()));
            for (entry, placement) in files.iter().filter(|(entry, _)| is_new(entry)) {
                rows.push(self.row(connection, &mut classes, entry, placement)?);
            }
            // A store has one ownership; where it was changed, trees of the other one are registered every time.
            if known.is_none() {
                set_registered.execute((id, &ownership))?;
            }
        }
        let mut pinned = Vec::new();
        let mut trees = HashSet::new();
        for (tree, files) in &self.pinned {
            trees.insert(registered_for(&mut registered, tree)?.0);
            for (entry, placement) in files {
                pinned.push(self.row(connection, &mut classes, entry, placement)?);
            }
        }
        insert_pinned(connection, version, trees, &pinned)?;
        rows.append(&mut pinned);
        insert_objects(connection, rows)
    }

    fn row(
        &self,
        connection: &Connection,
        classes: &mut Classes,
        entry: &Entry,
        placement: &Placement,
    ) -> rusqlite::Result<ObjectRow> {
        let Node::File { size, .. } = entry.node else { return Err(rusqlite::Error::InvalidQuery) };
        let key = self.manifest.object_key(entry, *placement).ok_or(rusqlite::Error::InvalidQuery)?;
        let mtime = (placement.mtime_seconds, placement.mtime_nanoseconds);
        Ok(ObjectRow {
            content: key.content,
            class: classes.id(connection, key.class)?,
            recorded: Recorded { size, mtime },
        })
    }
}

/// The row of a tree and the ownership that its objects are registered for.
fn registered_for(statement: &mut CachedStatement<'_>, tree: &TreeId) -> rusqlite::Result<(RowId, Option<String>)> {
    statement.query_row([tree.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The names in a tree whose objects may not be there: those that it does not share with a tree of the same base that
/// is registered for this ownership. `None`: all of them.
fn names_to_register(
    connection: &Connection,
    tree: RowId,
    ownership: &str,
) -> rusqlite::Result<Option<HashSet<Vec<u8>>>> {
    let mut registered = connection.prepare_cached(REGISTERED_SIBLING)?;
    let Some(sibling) = optional(registered.query_row((tree, ownership), |row| row.get::<_, RowId>(0)))? else {
        return Ok(None);
    };
    let mut names = connection.prepare_cached(NOT_SHARED)?;
    names.query_map([tree, sibling], |row| row.get(0))?.collect::<rusqlite::Result<_>>().map(Some)
}

/// A row of `objects`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ObjectRow {
    content: ContentId,
    class: i64,
    recorded: Recorded,
}

impl ObjectRow {
    fn key(&self) -> (ContentId, i64) {
        (self.content, self.class)
    }
}

fn insert_objects(connection: &Connection, mut rows: Vec<ObjectRow>) -> rusqlite::Result<()> {
    // In the order of the table: twice as fast as in any other. (Stable: of equal keys the first counts.)
    rows.sort_by_key(ObjectRow::key);
    rows.dedup_by_key(|row| row.key());
    let mut statement = connection.prepare_cached(INSERT_OBJECT)?;
    for ObjectRow { content, class, recorded: Recorded { size, mtime } } in &rows {
        statement.execute((content.as_bytes(), class, number(*size)?, mtime.0, mtime.1))?;
    }
    Ok(())
}

fn insert_pinned(
    connection: &Connection,
    version: i64,
    trees: HashSet<RowId>,
    rows: &[ObjectRow],
) -> rusqlite::Result<()> {
    let mut trees: Vec<RowId> = trees.into_iter().collect();
    trees.sort_unstable();
    let mut statement = connection.prepare_cached(INSERT_PINNED_TREE)?;
    for tree in trees {
        statement.execute((version, tree))?;
    }
    let mut keys: Vec<_> = rows.iter().map(ObjectRow::key).collect();
    keys.sort_unstable();
    let mut statement = connection.prepare_cached(INSERT_PINNED_OBJECT)?;
    for (content, class) in keys {
        statement.execute((version, content.as_bytes(), class))?;
    }
    Ok(())
}

/// The class that a file of this recorded metadata has under an ownership, its time being no part of it.
pub(super) fn plain_class(ownership: Ownership, metadata: &crate::model::Metadata) -> InodeClass {
    Sealed::of(&ownership.apply(metadata), None).class
}

impl Reader<'_> {
    /// What is recorded of an object, or `None` if no published version refers to it.
    pub fn object(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        object_in(&self.transaction, key)
    }

    /// All objects that published versions refer to, as a copy that many threads may ask: 64 bytes for each.
    pub fn published_objects(&self) -> Result<PublishedObjects> {
        let action = "look up objects";
        let read = || {
            let Some(classes) = Classes::all(&self.transaction)? else { return Ok(None) };
            let mut statement = self.transaction.prepare_cached(OBJECTS)?;
            let mut rows = statement.query([])?;
            let (mut objects, mut sizes) = (Vec::new(), HashSet::new());
            while let Some(row) = rows.next()? {
                let content = ContentId::from_bytes(row.get(0)?);
                let recorded = recorded(row, 2)?;
                sizes.insert(recorded.size);
                objects.push(ObjectRow { content, class: row.get(1)?, recorded });
            }
            Ok(Some(PublishedObjects { classes: classes.0, objects, sizes }))
        };
        read().map_err(failed(action))?.ok_or_else(|| malformed(action, "an inode class makes no sense"))
    }
}

fn object_in(connection: &Connection, key: &ObjectKey) -> Result<Option<Recorded>> {
    let text = class_text(&key.class);
    let found = connection.prepare_cached(OBJECT).and_then(|mut statement| {
        optional(statement.query_row((key.content.as_bytes(), text), |row| recorded(row, 0)))
    });
    found.map_err(failed("look up an object"))
}

/// Looks up objects for as long as an import takes, from any of its threads.
///
/// To begin to read costs more than to look up, and whoever reads keeps others from committing. So the reading goes on
/// from question to question, for [`TURN`] at most; a thread of its own ends it when no question follows. The answers
/// may be of different moments: what is published stays so while the caller holds the store's lock.
#[derive(Debug)]
pub struct Lookup {
    reading: Arc<Mutex<Reading>>,
}

/// Length of one reading: short for a process that waits to commit, and thousands of questions.
const TURN: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Reading {
    connection: Connection,
    since: Option<Instant>,
    /// Whether a thread ends a reading that no question follows.
    watch: Option<bool>,
}

impl Index {
    /// Turns into a means to look up objects during an import.
    pub fn into_lookup(self) -> Lookup {
        let reading = Reading { connection: self.connection, since: None, watch: None };
        Lookup { reading: Arc::new(Mutex::new(reading)) }
    }
}

impl Lookup {
    /// As [`Reader::object`].
    ///
    /// # Errors
    ///
    /// [`Error::Index`](crate::error::Error::Index) if the engine fails, or another process holds the index.
    pub fn object(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = *reading.watch.get_or_insert_with(|| watch(Arc::downgrade(&self.reading)));
        let found = reading.begin().map_err(failed("begin to read")).and_then(|()| object_in(&reading.connection, key));
        reading.end_after(if watched && found.is_ok() { TURN } else { Duration::ZERO });
        found
    }
}

impl Reading {
    fn begin(&mut self) -> rusqlite::Result<()> {
        if self.since.is_none() {
            self.connection.execute_batch("BEGIN DEFERRED")?;
            self.since = Some(Instant::now());
        }
        Ok(())
    }

    /// Ends the reading if it has gone on for this long.
    fn end_after(&mut self, length: Duration) {
        if self.since.is_some_and(|since| since.elapsed() >= length) {
            self.since = None;
            // Nothing was changed, so nothing can fail to be kept.
            let _ = self.connection.execute_batch("COMMIT");
        }
    }
}

/// Starts the thread that ends readings, until there is no lookup any more; `false` if the system gives no thread.
fn watch(reading: Weak<Mutex<Reading>>) -> bool {
    let ends_readings = move || {
        while let Some(reading) = reading.upgrade() {
            reading.lock().unwrap_or_else(PoisonError::into_inner).end_after(TURN);
            drop(reading);
            std::thread::sleep(TURN);
        }
    };
    std::thread::Builder::new().name("tope-index".into()).spawn(ends_readings).is_ok()
}

fn recorded(row: &Row<'_>, first: usize) -> rusqlite::Result<Recorded> {
    Ok(Recorded { size: unsigned(row, first)?, mtime: (row.get(first + 1)?, row.get(first + 2)?) })
}

/// The objects that published versions refer to, at one moment.
#[derive(Debug, Clone, Default)]
pub struct PublishedObjects {
    classes: HashMap<InodeClass, i64>,
    /// Sorted by key.
    objects: Vec<ObjectRow>,
    sizes: HashSet<u64>,
}

impl PublishedObjects {
    /// What is recorded of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<Recorded> {
        let class = self.classes.get(&key.class)?;
        let at = self.objects.binary_search_by_key(&(key.content, *class), ObjectRow::key).ok()?;
        Some(self.objects[at].recorded)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl Published for PublishedObjects {
    fn lookup(&self, key: &ObjectKey) -> Result<Option<Recorded>> {
        Ok(self.get(key))
    }

    fn may_have_size(&self, size: u64) -> bool {
        self.sizes.contains(&size)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{index_of, manifest, object_keys};
    use super::*;
    use crate::model::XattrDigest;

    #[test]
    fn classes_read_back_from_their_text() {
        for (xattrs, mtime) in
            [(None, None), (Some(Box::new(XattrDigest::from_bytes([3; 32]))), None), (None, Some(-7))]
        {
            let class = InodeClass { mode: 0o4555, uid: 7, gid: u32::MAX, xattrs, mtime };
            assert_eq!(parse_class(&class_text(&class)), Some(class));
        }
        assert_eq!(parse_class("444.0.0"), None);
    }

    #[test]
    fn every_object_of_a_published_version_is_known_and_no_other() {
        let manifest = manifest("v1", 1, &[("a", "1"), ("b*", "1"), ("c@", "1"), ("empty", ""), ("l>", "a")]);
        let mut index = index_of([&manifest]);
        let reader = index.read().unwrap();
        let published = reader.published_objects().unwrap();
        let keys = object_keys(&manifest);
        assert_eq!((keys.len(), published.len()), (3, 3));
        for (key, recorded) in keys {
            assert_eq!(reader.object(&key).unwrap(), Some(recorded), "{key}");
            assert_eq!(published.lookup(&key).unwrap(), Some(recorded), "{key}");
            let other = ObjectKey { content: ContentId::of(b"other"), ..key.clone() };
            let another = ObjectKey { class: InodeClass { uid: 1, ..key.class }, ..key };
            for missing in [other, another] {
                assert_eq!(reader.object(&missing).unwrap(), None);
                assert_eq!(published.get(&missing), None);
            }
        }
        assert!(published.may_have_size(1) && !published.may_have_size(2));
    }

    #[test]
    fn trees_that_are_not_published_make_no_object_trusted() {
        let manifest = manifest("v1", 1, &[("d/a", "1")]);
        let mut index = index_of([]);
        let mut writer = index.write().unwrap();
        writer.add_trees(&manifest.trees, &manifest.root).unwrap();
        writer.commit().unwrap();
        assert!(index.read().unwrap().published_objects().unwrap().is_empty());
        let mut writer = index.write().unwrap();
        writer.insert_version(&manifest, &super::super::samples::manifest_file(1)).unwrap();
        assert_eq!(writer.published_objects().unwrap().len(), 1);
    }
}
