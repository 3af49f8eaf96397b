//! The pristine bytes of a version's files.
//!
//! They are looked for where they should be: in the object that the version links to, in any other object with the
//! same bytes (another mode or owner), in the version's tree. Wherever they are found they are hashed: a name proves
//! nothing, and what comes out is what was released, or an error. So it makes no difference that others than the
//! store's owner may not enter `objects/`.

use std::fs::File;
use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::fsys::stat::stat_file;
use crate::fsys::{Dir, Kind};
use crate::hash::{self, Threads};
use crate::layout;
use crate::model::{ContentId, InodeClass, Metadata, ObjectKey, Ownership, Sealed, TreePath, VersionName};
use crate::object::trust::Suspect;
use crate::store::Store;

/// One file of a version.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The version.
    pub version: &'a VersionName,
    /// Where it is in there.
    pub path: &'a TreePath,
    /// Its recorded metadata.
    pub metadata: &'a Metadata,
    /// Its content.
    pub content: ContentId,
    /// Its size.
    pub size: u64,
}

/// Opens the files of versions.
pub struct Contents<'a> {
    store: &'a Store,
    /// Absent for users who may not enter it.
    objects: Option<Dir>,
    ownership: Ownership,
}

impl<'a> Contents<'a> {
    /// Those of a store.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn of(store: &'a Store) -> Result<Self> {
        let objects = match store.dir().open_dir(layout::OBJECTS) {
            Ok(objects) => Some(objects),
            Err(error) if error.is_io(io::ErrorKind::PermissionDenied) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { store, objects, ownership: store.ownership() })
    }

    /// The whole of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if its bytes are nowhere to be found intact.
    pub fn read(&self, wanted: Wanted<'_>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.first_intact(wanted, |file| {
            bytes.clear();
            hash::copy(file, &mut bytes, Threads::One).map(|(content, _)| content)
        })?;
        Ok(bytes)
    }

    /// Writes a file's bytes to `out`. A small file is checked before its first byte is written, a big one while it
    /// is: on an error the reader has got bytes that are not the file's.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if its bytes are nowhere to be found intact; what writing meets, as an error about
    /// standard output.
    pub fn write(&self, wanted: Wanted<'_>, out: &mut dyn Write) -> Result<()> {
        let unwritable = |error| Error::io("write to", "standard output", error);
        if wanted.size <= hash::WHOLE_BYTES {
            return out.write_all(&self.read(wanted)?).map_err(unwritable);
        }
        // Once bytes are out there is no second attempt.
        let mut sink = Sink { out, failure: None, begun: false };
        let mut last = None;
        for Candidate { file, path, object } in self.candidates(wanted)? {
            let copied = hash::copy(&file, &mut sink, Threads::One);
            if let Some(error) = sink.failure.take() {
                return Err(unwritable(error));
            }
            match copied {
                Ok((content, _)) if content == wanted.content => return Ok(()),
                Ok(_) => last = Some(self.differs(&path, object)),
                Err(error) => last = Some(Error::io("read", path, error)),
            }
            if sink.begun {
                break;
            }
        }
        Err(last.unwrap_or_else(|| self.missing(wanted)))
    }

    /// Gives every candidate to `read` until one has the right content.
    fn first_intact(&self, wanted: Wanted<'_>, mut read: impl FnMut(&File) -> io::Result<ContentId>) -> Result<()> {
        if wanted.size == 0 {
            return Ok(());
        }
        let mut first = None;
        for Candidate { file, path, object } in self.candidates(wanted)? {
            let error = match read(&file) {
                Ok(content) if content == wanted.content => return Ok(()),
                Ok(_) => self.differs(&path, object),
                Err(error) => Error::io("read", path, error),
            };
            first.get_or_insert(error);
        }
        Err(first.unwrap_or_else(|| self.missing(wanted)))
    }

    fn key(&self, wanted: Wanted<'_>) -> ObjectKey {
        let class: InodeClass = Sealed::of(&self.ownership.apply(wanted.metadata), None).class;
        ObjectKey { content: wanted.content, class }
    }

    fn missing(&self, wanted: Wanted<'_>) -> Error {
        let key = self.key(wanted);
        match &self.objects {
            Some(objects) => Error::corrupt("object", objects.path_of(key.to_string()), "it is missing"),
            None => {
                let path = self.store.dir().path_of(layout::OBJECTS);
                Error::io("open directory", path, io::Error::from(io::ErrorKind::PermissionDenied))
            }
        }
    }

    /// Files of the right size that may have the bytes, the likeliest first.
    fn candidates(&self, wanted: Wanted<'_>) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        let mut take = |dir: &Dir, name: &[u8], key: Option<&ObjectKey>| {
            let Ok(file) = dir.open_file(name) else { return };
            let Ok(stat) = stat_file(&file, || dir.path_of(name)) else { return };
            if stat.kind == Kind::File && stat.size == wanted.size {
                let object = key.map(|key| Suspect::new(key, &stat));
                found.push(Candidate { file, path: dir.path_of(name), object });
            }
        };
        let key = self.key(wanted);
        let fan = self.objects.as_ref().map(|objects| objects.try_open_dir(key.directory())).transpose()?.flatten();
        if let Some(fan) = &fan {
            let exact = key.file_name();
            take(fan, exact.as_bytes(), Some(&key));
            for item in fan.items()? {
                let name = item.name.as_bytes();
                let other = ObjectKey::parse(key.directory().as_bytes(), name);
                if let Some(other) = other.filter(|other| other.content == wanted.content && *other != key) {
                    take(fan, name, Some(&other));
                }
            }
        }
        let mut above = wanted.path.clone();
        above.pop();
        let tree = self.store.versions().open_dir(wanted.version).and_then(|tree| tree.open_below(&above));
        if let (Ok(dir), Some(name)) = (tree, wanted.path.components().last()) {
            take(&dir, name, None);
        }
        Ok(found)
    }

    /// Says that a candidate is not what it should be; revokes it if it is an object.
    fn differs(&self, path: &std::path::Path, object: Option<Suspect>) -> Error {
        if let Some(why) = self.store.revoke(&object.into_iter().collect()).unrecorded {
            tracing::warn!(why, "the damage that was found cannot be recorded");
        }
        Error::corrupt("object", path, "its contents are not what they were when it was imported")
    }
}

/// A file that may have the bytes.
struct Candidate {
    file: File,
    path: std::path::PathBuf,
    /// What it is, if it is an object.
    object: Option<Suspect>,
}

/// Passes bytes on and remembers what went wrong with that, so that it is told apart from what goes wrong with reading.
struct Sink<'a> {
    out: &'a mut dyn Write,
    failure: Option<io::Error>,
    begun: bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun = true;
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.failure = Some(error);
            io::Error::from(kind)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
