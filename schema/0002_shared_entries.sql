-- What trees have in common is stored once, and source files seen at import are remembered in blocks.

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

-- A tree with a base has what the base has, except where "entries" has another entry of that name or "hidden_names" has
-- the name. Subdirectories are always in "entries". NULL: everything is.
ALTER TABLE trees ADD COLUMN base INTEGER REFERENCES bases (id);

CREATE INDEX trees_by_base ON trees (base) WHERE base IS NOT NULL;

-- Names of its base that a tree does not have.
CREATE TABLE hidden_names (
    tree INTEGER NOT NULL REFERENCES trees (id) ON DELETE CASCADE,
    name BLOB NOT NULL,
    PRIMARY KEY (tree, name)
) STRICT, WITHOUT ROWID;

-- The entries of each tree, wherever they are stored.
CREATE VIEW tree_entries (tree, name, kind, mode, uid, gid, xattrs, size, content, subtree, target) AS
SELECT tree, name, kind, mode, uid, gid, xattrs, size, content, subtree, target FROM entries
UNION ALL
SELECT t.id, b.name, b.kind, b.mode, b.uid, b.gid, b.xattrs, b.size, b.content, NULL, b.target
FROM trees AS t JOIN base_entries AS b ON b.base = t.base
WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.tree = t.id AND e.name = b.name)
    AND NOT EXISTS (SELECT 1 FROM hidden_names AS h WHERE h.tree = t.id AND h.name = b.name);

-- As before: every path of every version. Walks all versions whatever the WHERE clause says: seconds for millions of
-- files. (Joins the tables itself: joined with the view above, the engine would first write that out whole.)
--   SELECT path, size FROM version_files WHERE version = 'v1.0.0' ORDER BY size DESC LIMIT 20;
--   SELECT version, path FROM version_files WHERE content_hex = '…';
-- "path" shows the bytes of names that are not UTF-8 as they are; "path_hex" is exact.
DROP VIEW version_files;
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

-- Source files seen at import, so that an unchanged one need not be read again: all of 64 neighbouring inodes in one
-- row. A cache: rows come and go, and those of before go now.
DROP TABLE stat_cache;
CREATE TABLE stat_cache (
    id INTEGER PRIMARY KEY,
    filesystem BLOB NOT NULL,                              -- identifies the source's file system over reboots
    block INTEGER NOT NULL,                                -- a sixty-fourth of the inode numbers, rounded down
    generation INTEGER NOT NULL,                           -- import number it was last written under; old ones go first
    -- In the order of inodes, 57 bytes each, numbers little-endian: the remainder of the inode number (1), size (8),
    -- mtime and ctime in nanoseconds since 1970 (8 each), BLAKE3 of the contents (32).
    files BLOB NOT NULL,
    UNIQUE (filesystem, block)
) STRICT;
