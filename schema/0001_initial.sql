-- The index: what manifests and history say, made queryable. It is derived: when it is missing or damaged it is
-- rebuilt from them, and nothing is lost but time (and the stat cache). Never edit it; edit nothing at all by hand.
--
-- Hashes are 32-byte BLOBs: lower(hex(x)) prints one. Names and paths inside versions are bytes, not text.
-- Times are seconds since 1970 by the wall clock of the machine, which may have been wrong.

-- Which part of the history this index reflects. One row.
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    last_event INTEGER NOT NULL CHECK (last_event >= 0),   -- number of the last event taken in; 0 = none
    chain BLOB NOT NULL CHECK (length(chain) = 32)         -- that event's chain value
) STRICT;
INSERT INTO meta VALUES (1, 0, zeroblob(32));

-- Sets of files and symbolic links that trees hold with few differences: release after release most directories that
-- change keep most of what is in them.
CREATE TABLE bases (
    id INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE base_entries (
    base INTEGER NOT NULL REFERENCES bases (id),
    name BLOB NOT NULL,
    kind INTEGER NOT NULL,                                 -- 1 file, 3 symbolic link
    mode INTEGER NOT NULL,                                 -- all columns as in "entries"
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    xattrs BLOB,
    size INTEGER,
    content BLOB,
    target BLOB,
    PRIMARY KEY (base, name),
    CHECK (CASE kind
        WHEN 1 THEN size >= 0 AND length(content) = 32 AND target IS NULL
        WHEN 3 THEN target IS NOT NULL AND size IS NULL AND content IS NULL
        ELSE FALSE END)
) STRICT, WITHOUT ROWID;

-- Directories by the hash of their entries. Equal directories of all versions are one row.
CREATE TABLE trees (
    id INTEGER PRIMARY KEY,                                -- short name of the hash within this database
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- Some published version of this ownership places every file of this tree by content and recorded metadata
    -- alone, so the keys of all its files are in "objects" already. NULL: not known to be so.
    registered TEXT,
    -- A tree with a base has what the base has, except where "entries" has another entry of that name or "hidden_names"
    -- has the name. Subdirectories are always in "entries". NULL: everything is.
    base INTEGER REFERENCES bases (id)
) STRICT;

CREATE INDEX trees_by_base ON trees (base) WHERE base IS NOT NULL;

-- The entries of each tree that are not in its base. Every tree that is here has all of its entries here or there, and
-- all trees below it.
CREATE TABLE entries (
    tree INTEGER NOT NULL REFERENCES trees (id),
    name BLOB NOT NULL,
    kind INTEGER NOT NULL,                                 -- 1 file, 2 directory, 3 symbolic link
    mode INTEGER NOT NULL,                                 -- as recorded, before sealing
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    xattrs BLOB,                                           -- canonical encoding; NULL: none
    size INTEGER,                                          -- of a file, in bytes
    content BLOB,                                          -- of a file: BLAKE3 of its bytes
    subtree INTEGER REFERENCES trees (id),                 -- of a directory
    target BLOB,                                           -- of a symbolic link
    PRIMARY KEY (tree, name),
    CHECK (CASE kind
        WHEN 1 THEN size >= 0 AND length(content) = 32 AND subtree IS NULL AND target IS NULL
        WHEN 2 THEN subtree IS NOT NULL AND size IS NULL AND content IS NULL AND target IS NULL
        WHEN 3 THEN target IS NOT NULL AND size IS NULL AND content IS NULL AND subtree IS NULL
        ELSE FALSE END)
) STRICT, WITHOUT ROWID;

-- Upwards: which trees hold this tree.
CREATE INDEX entries_by_subtree ON entries (subtree) WHERE subtree IS NOT NULL;

-- Names of its base that a tree does not have.
CREATE TABLE hidden_names (
    tree INTEGER NOT NULL REFERENCES trees (id) ON DELETE CASCADE,
    name BLOB NOT NULL,
    PRIMARY KEY (tree, name)
) STRICT, WITHOUT ROWID;

-- Published versions.
CREATE TABLE versions (
    import_number INTEGER PRIMARY KEY,                     -- higher is newer; the only order that decides anything
    name TEXT NOT NULL UNIQUE,
    tree INTEGER NOT NULL REFERENCES trees (id),           -- the root tree; its hash is the version's digest
    imported_at INTEGER NOT NULL,
    clock_synchronised INTEGER NOT NULL CHECK (clock_synchronised IN (0, 1)),
    note TEXT NOT NULL,                                    -- as given at import; later notes are events
    source_kind TEXT NOT NULL,                             -- directory, archive, stream, adopted, … (FORMAT.md)
    source_path BLOB NOT NULL,
    ownership TEXT NOT NULL,                               -- 'as-recorded', or 'uid:gid' that everything belongs to
    files INTEGER NOT NULL,
    directories INTEGER NOT NULL,                          -- without the top
    symlinks INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,                          -- sizes of all files, shared or not
    anchor_event INTEGER NOT NULL,                         -- the history's last event when it was published; 0 = none
    anchor_chain BLOB NOT NULL CHECK (length(anchor_chain) = 32),  -- that event's chain value
    extensions BLOB NOT NULL,                              -- of the manifest, as they stand at its end
    -- The manifest file that this row was made from: another one in its place has another of these.
    manifest_size INTEGER NOT NULL,
    manifest_mtime_ns INTEGER NOT NULL,
    manifest_inode INTEGER NOT NULL
) STRICT;

CREATE INDEX versions_by_tree ON versions (tree);

-- Labels given at import.
CREATE TABLE labels (
    version INTEGER NOT NULL REFERENCES versions (import_number) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (version, key)
) STRICT, WITHOUT ROWID;

-- Paths that live outside the version.
CREATE TABLE shared_paths (
    version INTEGER NOT NULL REFERENCES versions (import_number) ON DELETE CASCADE,
    path BLOB NOT NULL,
    PRIMARY KEY (version, path)
) STRICT, WITHOUT ROWID;

-- Inode classes, written as they end an object's name: "0555.0.0".
CREATE TABLE classes (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- The objects that published manifests refer to, and no others: only these are trusted without being read.
CREATE TABLE objects (
    content BLOB NOT NULL CHECK (length(content) = 32),
    class INTEGER NOT NULL,                                -- classes.id; a foreign key would cost an index as big
    size INTEGER NOT NULL CHECK (size > 0),                -- empty files are never objects
    mtime_seconds INTEGER NOT NULL,                        -- of the object's inode, as the manifest recorded it
    mtime_nanoseconds INTEGER NOT NULL,
    PRIMARY KEY (content, class)
) STRICT, WITHOUT ROWID;

-- Trees that hold, in this version, a file whose modification time is part of its object's key. What objects such a
-- tree uses does not follow from the tree, so "pinned_objects" names them all.
CREATE TABLE pinned_trees (
    version INTEGER NOT NULL REFERENCES versions (import_number) ON DELETE CASCADE,
    tree INTEGER NOT NULL REFERENCES trees (id),
    PRIMARY KEY (version, tree)
) STRICT, WITHOUT ROWID;

CREATE INDEX pinned_trees_by_tree ON pinned_trees (tree);

-- Objects used by files that lie directly in one of the version's "pinned_trees".
CREATE TABLE pinned_objects (
    version INTEGER NOT NULL REFERENCES versions (import_number) ON DELETE CASCADE,
    content BLOB NOT NULL,
    class INTEGER NOT NULL,
    PRIMARY KEY (version, content, class)
) STRICT, WITHOUT ROWID;

-- The history, line by line.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    action TEXT NOT NULL,                                  -- as it stands in the line, known to this build or not
    version TEXT,
    digest BLOB CHECK (digest IS NULL OR length(digest) = 32),
    json TEXT NOT NULL                                     -- the event exactly as it was written
) STRICT;

CREATE INDEX events_by_version ON events (version) WHERE version IS NOT NULL;

-- Source files seen at import, so that an unchanged one need not be read again: all of 64 neighbouring inodes in one
-- row. A cache: rows come and go.
CREATE TABLE stat_cache (
    id INTEGER PRIMARY KEY,
    filesystem BLOB NOT NULL,                              -- names the source's mount, of this boot only
    block INTEGER NOT NULL,                                -- a sixty-fourth of the inode numbers, rounded down
    generation INTEGER NOT NULL,                           -- import number it was last written under; old ones go first
    -- In the order of inodes, 57 bytes each, numbers little-endian: the remainder of the inode number (1), size (8),
    -- mtime and ctime in nanoseconds since 1970 (8 each), BLAKE3 of the contents (32).
    files BLOB NOT NULL,
    UNIQUE (filesystem, block)
) STRICT;

-- The entries of each tree, wherever they are stored.
CREATE VIEW tree_entries (tree, name, kind, mode, uid, gid, xattrs, size, content, subtree, target) AS
SELECT tree, name, kind, mode, uid, gid, xattrs, size, content, subtree, target FROM entries
UNION ALL
SELECT t.id, b.name, b.kind, b.mode, b.uid, b.gid, b.xattrs, b.size, b.content, NULL, b.target
FROM trees AS t JOIN base_entries AS b ON b.base = t.base
WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.tree = t.id AND e.name = b.name)
    AND NOT EXISTS (SELECT 1 FROM hidden_names AS h WHERE h.tree = t.id AND h.name = b.name);

-- Every path of every version. Walks all versions whatever the WHERE clause says: seconds for millions of files. (Joins
-- the tables itself: joined with the view above, the engine would first write that out whole.)
--   SELECT path, size FROM version_files WHERE version = 'v1.0.0' ORDER BY size DESC LIMIT 20;
--   SELECT version, path FROM version_files WHERE content_hex = '…';
-- "path" shows the bytes of names that are not UTF-8 as they are; "path_hex" is exact.
CREATE VIEW version_files (version, path, kind, mode, uid, gid, size, content_hex, target, path_hex) AS
WITH RECURSIVE directories (version, prefix, tree) AS (
    SELECT name, '', tree FROM versions
    UNION ALL
    SELECT d.version, d.prefix || CAST(e.name AS TEXT) || '/', e.subtree
    FROM directories AS d JOIN entries AS e ON e.tree = d.tree
    WHERE e.subtree IS NOT NULL
),
found (version, prefix, name, kind, mode, uid, gid, size, content, target) AS (
    SELECT d.version, d.prefix, e.name, e.kind, e.mode, e.uid, e.gid, e.size, e.content, e.target
    FROM directories AS d JOIN entries AS e ON e.tree = d.tree
    UNION ALL
    SELECT d.version, d.prefix, b.name, b.kind, b.mode, b.uid, b.gid, b.size, b.content, b.target
    FROM directories AS d JOIN trees AS t ON t.id = d.tree JOIN base_entries AS b ON b.base = t.base
    WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.tree = t.id AND e.name = b.name)
        AND NOT EXISTS (SELECT 1 FROM hidden_names AS h WHERE h.tree = t.id AND h.name = b.name)
)
SELECT version,
    prefix || CAST(name AS TEXT),
    CASE kind WHEN 1 THEN 'file' WHEN 2 THEN 'directory' ELSE 'symlink' END,
    printf('%04o', mode),
    uid,
    gid,
    size,
    lower(hex(content)),
    CAST(target AS TEXT),
    lower(hex(prefix || CAST(name AS TEXT)))
FROM found;

-- Versions, newest first, with digest and sizes.
CREATE VIEW version_sizes (version, import_number, imported_utc, digest, files, directories, symlinks, total_bytes) AS
SELECT v.name, v.import_number, datetime(v.imported_at, 'unixepoch'), 't1:' || lower(hex(t.hash)),
    v.files, v.directories, v.symlinks, v.total_bytes
FROM versions AS v JOIN trees AS t ON t.id = v.tree
ORDER BY v.import_number DESC;

-- The history, newest first.
CREATE VIEW event_log (seq, utc, action, version, "from", outcome, reason, who, text) AS
SELECT seq, datetime(time, 'unixepoch'), action, version,
    json_extract(json, '$.from'),
    json_extract(json, '$.outcome'),
    json_extract(json, '$.reason'),
    coalesce(json_extract(json, '$.who.name'), json_extract(json, '$.who.uid')),
    json_extract(json, '$.text')
FROM events ORDER BY seq DESC;

-- Objects that published versions use, by their names below store/objects.
CREATE VIEW object_files (path, size, mtime_utc) AS
SELECT lower(hex(substr(o.content, 1, 1))) || '/' || lower(hex(substr(o.content, 2))) || '.' || c.name,
    o.size, datetime(o.mtime_seconds, 'unixepoch')
FROM objects AS o JOIN classes AS c ON c.id = o.class;
