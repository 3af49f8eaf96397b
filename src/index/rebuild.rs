//! Building an index anew from what is true: manifests and history.
//!
//! The new file is written under a name of its own, beside the old one. The caller, who holds `lock` exclusive, then
//! [puts it in place](replace()). The order matters: the engine would roll a journal of the old database back into the
//! new one, and an old database without its journal may be half of a commit, which need not look like damage.
//!
//! | died after | the next open sees |
//! | --- | --- |
//! | any moment of the build | the old index; the half-built file is replaced by the next rebuild |
//! | 1. old index removed, durable | no index, beside a journal that belongs to none: rebuilt |
//! | 2. journal removed, durable | no index: rebuilt |
//! | 3. new index renamed, durable | the new index |
//!
//! Where nothing lies beside the old index, the rename alone replaces it.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::{failed, malformed};
use super::migrate::{MIGRATIONS, migrate};
use super::open::{companions, configure, uri};
use super::{HistoryLine, Index, ManifestFile};
use crate::error::Result;
use crate::fsys::{Dir, Kind, file, remove};
use crate::layout;
use crate::model::Manifest;

const QUICK_CHECK: &str = "PRAGMA quick_check(1)";
const ACTION: &str = "be rebuilt";

/// Builds a new index at `name` in `dir`, replacing a half-built one: a single file, checked, synced, closed, with no
/// journal beside it. Manifests are best given in import order, one at a time; an error among them ends the build.
///
/// # Errors
///
/// What the iterators give, and [`Error::Index`](crate::error::Error::Index); then nothing is left at `name`.
pub fn rebuild(
    dir: &Dir,
    name: &str,
    manifests: impl IntoIterator<Item = Result<(Manifest, ManifestFile)>>,
    history: impl IntoIterator<Item = Result<HistoryLine>>,
) -> Result<()> {
    clear(dir, name)?;
    let built = build(dir, name, manifests, history);
    if built.is_err() {
        // The error that stopped the build is the one to tell.
        let _ = clear(dir, name);
    }
    built
}

/// Fills an empty index, such as [`Index::in_memory`] gives, in one transaction.
///
/// # Errors
///
/// What the iterators give, and [`Error::Index`](crate::error::Error::Index); then the index stays empty.
pub fn fill(
    index: &mut Index,
    manifests: impl IntoIterator<Item = Result<(Manifest, ManifestFile)>>,
    history: impl IntoIterator<Item = Result<HistoryLine>>,
) -> Result<()> {
    let mut writer = index.write()?;
    for manifest in manifests {
        let (manifest, file) = manifest?;
        writer.insert_version(&manifest, &file)?;
    }
    for line in history {
        writer.append_events([&line?])?;
    }
    writer.commit()
}

fn build(
    dir: &Dir,
    name: &str,
    manifests: impl IntoIterator<Item = Result<(Manifest, ManifestFile)>>,
    history: impl IntoIterator<Item = Result<HistoryLine>>,
) -> Result<()> {
    // The engine opens, makes and removes files by their paths: as the directory's owner from beginning to end.
    let _acting = dir.act()?;
    // The engine makes its companion files like it. Whoever may not read it would have to read all manifests.
    let file = dir.create_file(name, layout::PUBLIC_FILE_MODE)?;
    file::set_mode(dir.holding(&file), layout::PUBLIC_FILE_MODE, || dir.path_of(name))?;
    drop(file);
    let connection = create(dir, name).map_err(failed(ACTION))?;
    let mut index = Index::new(connection, Duration::ZERO);
    fill(&mut index, manifests, history)?;
    let finding = finish(&index.connection).map_err(failed(ACTION))?;
    if finding != "ok" {
        return Err(malformed(ACTION, "what was just written does not read back"));
    }
    index.close()?;
    file::sync(&dir.open_file(name)?, || dir.path_of(name))
}

fn create(dir: &Dir, name: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let mut connection = Connection::open_with_flags(uri(&dir.path_of(name)), flags)?;
    configure(&connection, Duration::ZERO)?;
    // Until it is renamed the file is nobody's: one sync at the end is enough, and a crash throws it away.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

/// Statistics, and a check.
fn finish(connection: &Connection) -> rusqlite::Result<String> {
    connection.execute_batch("PRAGMA optimize")?;
    connection.query_row(QUICK_CHECK, [], |row| row.get(0))
}

fn clear(dir: &Dir, name: &str) -> Result<()> {
    dir.remove_file_if_present(name)?;
    companions(name).iter().try_for_each(|name| dir.remove_file_if_present(name).map(drop))
}

/// Puts the index `new` in the place of the index `name`, whatever lies there. The caller knows that no other process
/// writes either.
///
/// # Errors
///
/// What the system refuses; then there may be no index at `name`, and [`rebuild`] can be called again.
pub fn replace(dir: &Dir, new: &str, name: &str) -> Result<()> {
    let mut left = Vec::new();
    for companion in companions(name) {
        if dir.try_stat(&companion)?.is_some() {
            left.push(companion);
        }
    }
    let in_the_way = dir.try_stat(name)?.is_some_and(|stat| stat.kind == Kind::Directory);
    if in_the_way || !left.is_empty() {
        remove::tree(dir, name)?;
        dir.sync()?;
    }
    for companion in &left {
        remove::tree(dir, companion)?;
    }
    if !left.is_empty() {
        dir.sync()?;
    }
    dir.rename(new, dir, name)?;
    dir.sync()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::fs;

    use super::super::samples::{history, manifest, manifest_file, name};
    use super::super::{EventFilter, Mode, Opened, open};
    use super::*;
    use crate::error::Error;
    use crate::model::{Action, Event};

    fn manifests() -> Vec<(Manifest, ManifestFile)> {
        let files = [("a/b@", "1"), ("a/c", "2"), ("d", "")];
        let contents = [vec![], files[..2].to_vec(), files.to_vec()];
        contents.iter().zip(1..).map(|(files, n)| (manifest(&format!("v{n}"), n, files), manifest_file(n))).collect()
    }

    fn lines() -> Vec<HistoryLine> {
        history((1..=3).map(|n| Event::about(Action::Import, &name(&format!("v{n}")), None)))
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let items = fs::read_dir(directory.path()).unwrap();
        items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Every row of every table that mirrors something, in an order of its own.
    fn contents(index: &Index) -> Vec<String> {
        let tables = [
            "SELECT quote(last_event) || quote(chain) FROM meta",
            "SELECT quote(name) || quote(import_number) || quote(files) || quote(ownership) FROM versions ORDER BY 1",
            "SELECT quote(version) || quote(key) || quote(value) FROM labels ORDER BY 1",
            "SELECT quote(version) || quote(path) FROM shared_paths ORDER BY 1",
            "SELECT quote(hash) || quote(registered) FROM trees ORDER BY 1",
            "SELECT quote(t.hash) || quote(e.name) || quote(e.content) || quote(s.hash) FROM tree_entries AS e
                JOIN trees AS t ON t.id = e.tree LEFT JOIN trees AS s ON s.id = e.subtree ORDER BY 1",
            "SELECT quote(o.content) || c.name || quote(size) || quote(mtime_seconds) FROM objects AS o
                JOIN classes AS c ON c.id = o.class ORDER BY 1",
            "SELECT quote(version) || quote(hash) FROM pinned_trees AS p JOIN trees AS t ON t.id = p.tree ORDER BY 1",
            "SELECT quote(version) || quote(content) || name FROM pinned_objects JOIN classes ON id = class ORDER BY 1",
            "SELECT quote(seq) || quote(action) || quote(version) || quote(json) FROM events ORDER BY seq",
        ];
        let mut all = Vec::new();
        for sql in tables {
            let mut statement = index.connection.prepare(sql).unwrap();
            all.push(sql.to_owned());
            all.extend(statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap));
        }
        all
    }

    #[test]
    fn a_rebuilt_index_a_grown_one_and_one_in_memory_say_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open(directory.path()).unwrap();
        fs::write(directory.path().join("new"), "half-built").unwrap();
        fs::write(directory.path().join("new-journal"), "half-built").unwrap();
        rebuild(&dir, "new", manifests().into_iter().map(Ok), lines().into_iter().map(Ok)).unwrap();
        assert_eq!(names(&directory), ["new"], "no journal is left");
        let Opened::Usable(rebuilt) = open(&dir, "new", Mode::ReadWrite, Duration::ZERO) else { panic!("not usable") };

        rebuild(&dir, "grown", [], []).unwrap();
        let Opened::Usable(mut grown) = open(&dir, "grown", Mode::ReadWrite, Duration::ZERO) else {
            panic!("not usable")
        };
        let mut memory = Index::in_memory().unwrap();
        for index in [&mut grown, &mut memory] {
            for ((manifest, file), line) in manifests().iter().zip(&lines()) {
                let mut writer = index.write().unwrap();
                writer.add_trees(&manifest.trees, &manifest.root).unwrap();
                writer.commit().unwrap();
                let mut writer = index.write().unwrap();
                writer.insert_version(manifest, file).unwrap();
                writer.append_events([line]).unwrap();
                writer.commit().unwrap();
            }
        }
        assert_eq!(contents(&rebuilt), contents(&grown));
        assert_eq!(contents(&rebuilt), contents(&memory));
        grown.close().unwrap();
        rebuilt.close().unwrap();
        let mut left = names(&directory);
        left.sort();
        assert_eq!(left, ["grown", "grown-journal", "new"], "a journal stays with its file");
    }

    #[test]
    fn an_error_among_the_manifests_ends_the_build_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open(directory.path()).unwrap();
        let given = manifests().into_iter().take(1).map(Ok).chain([Err(Error::Interrupted)]);
        assert!(matches!(rebuild(&dir, "new", given, []), Err(Error::Interrupted)));
        assert_eq!(names(&directory), Vec::<String>::new());
    }

    #[test]
    fn the_views_answer_an_operators_questions() {
        let mut index = Index::in_memory().unwrap();
        fill(&mut index, manifests().into_iter().map(Ok), lines().into_iter().map(Ok)).unwrap();
        assert_eq!(index.read().unwrap().events(&EventFilter::default()).unwrap().len(), 3);
        let ask = |sql: &str| -> Vec<String> {
            let mut statement = index.connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let one = crate::model::ContentId::of(b"1").to_hex();
        assert_eq!(
            ask("SELECT version || ' ' || path || ' ' || kind || ' ' || mode || ' ' || coalesce(size, '-') || ' ' ||
                content_hex FROM version_files WHERE path LIKE 'a%' AND path != 'a/c' ORDER BY 1"),
            [
                "v2 a directory 0755 - ".to_owned(),
                format!("v2 a/b file 0644 1 {one}"),
                "v3 a directory 0755 - ".to_owned(),
                format!("v3 a/b file 0644 1 {one}"),
            ]
        );
        assert_eq!(ask("SELECT version || ' ' || files FROM version_sizes"), ["v3 3", "v2 2", "v1 0"]);
        assert_eq!(
            ask("SELECT seq || ' ' || utc || ' ' || action FROM event_log LIMIT 1"),
            ["3 1970-01-01 00:16:43 import"]
        );
        let (key, _) = &super::super::samples::object_keys(&manifests()[1].0)[0];
        assert!(ask("SELECT path FROM object_files").contains(&key.to_string()));
    }
}
