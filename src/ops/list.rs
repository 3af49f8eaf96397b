//! What versions there are.
//!
//! Facts come from the index, marks from the history, roles from the links, and directories from `versions/` itself.
//! What one of them knows and another does not is listed all the same, with a [`State`] that says so: a damaged
//! manifest or a missing tree hides nothing.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::fsys::Kind;
use crate::index::{self, Counts, IndexedVersion, Reader};
use crate::model::manifest::Step;
use crate::model::marks::{Note, Standing};
use crate::model::{ContentId, Digest, Facts, Marks, Role, VersionName};
use crate::object::trust::Revoked;
use crate::refs::Roles;
use crate::store::Store;

/// How it stands with a version, in a word; of several that fit the first one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A directory that was made by hand and that no manifest describes.
    Unmanaged,
    /// Its manifest cannot be trusted.
    DamagedManifest,
    /// This binary is too old for its manifest.
    Newer,
    /// Its directory is gone.
    MissingTree,
    /// A repair found something in it damaged that it could not mend, or it refers to an object that is revoked.
    Damaged,
    /// Held to be bad.
    Bad,
    /// Passed its checks, or was confirmed.
    Good,
    /// Neither good nor bad as far as anybody knows.
    Unconfirmed,
}

impl State {
    /// The stable name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unmanaged => "unmanaged",
            Self::DamagedManifest => "damaged-manifest",
            Self::Newer => "newer",
            Self::MissingTree => "missing-tree",
            Self::Damaged => "damaged",
            Self::Bad => "bad",
            Self::Good => "good",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The order of a list. Unmanaged directories come last in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sort {
    /// By import number, oldest first.
    #[default]
    Import,
    /// Semantic versions in their own order, then all others by bytes.
    Name,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: VersionName,
    /// How it stands with it.
    pub state: State,
    /// The roles that lead to it.
    pub roles: Vec<Role>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Its digest, where manifest or history tell it.
    pub digest: Option<Digest>,
    /// Its import number, where manifest or history tell it.
    pub import_number: Option<u64>,
    /// What its manifest says; absent if there is none that can be trusted.
    pub published: Option<Published>,
    /// What is held of its digest.
    pub standing: Standing,
    /// Notes that were added since the import, oldest first.
    pub notes: Vec<Note>,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its facts.
    pub facts: Facts,
    /// What there is in it.
    pub counts: Counts,
}

impl Listed {
    /// The last thing that was noted, at import or since; empty if nothing was.
    pub fn note(&self) -> &str {
        let imported = self.published.as_ref().map_or("", |published| &published.facts.note);
        self.notes.last().map_or(imported, |note| &note.text)
    }
}

/// Lists all versions.
///
/// # Errors
///
/// What the system refuses; never because a version is damaged.
pub fn list(store: &Store, sort: Sort) -> Result<Vec<Listed>> {
    let around = Around::read(store)?;
    let mut indexed = around.ask(store, everything)?;
    let mut names = store.manifests()?.names()?;
    // Published or removed since the names were read.
    indexed.retain(|version| names.contains(&version.facts.name));
    let mut listed = Vec::new();
    for version in indexed {
        names.retain(|name| *name != version.facts.name);
        listed.push(around.describe(store, &version.facts.name.clone(), Some(version))?);
    }
    for name in names {
        listed.push(around.describe(store, &name, None)?);
    }
    match sort {
        // What is damaged so badly that nobody knows its number comes last.
        Sort::Import => listed.sort_by_key(|version| version.import_number.unwrap_or(u64::MAX)),
        Sort::Name => listed.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    for name in store.made_by_hand()?.versions {
        listed.push(around.describe(store, &name, None)?);
    }
    Ok(listed)
}

fn everything(reader: &Reader<'_>) -> Result<Vec<IndexedVersion>> {
    reader.versions()
}

/// What is known of versions besides their manifests.
pub(super) struct Around {
    marks: Marks,
    roles: Roles,
    /// Versions that refer to an object that is revoked.
    distrusted: BTreeSet<VersionName>,
}

impl Around {
    pub(super) fn read(store: &Store) -> Result<Self> {
        let marks = store.history()?.present()?.marks;
        let distrusted = distrusted(store, &marks)?;
        Ok(Self { marks, roles: store.refs()?.read()?, distrusted })
    }

    /// Asks the index for versions. If it has another digest for one than the history, it is made anew; if that
    /// changes nothing, it is the manifest that is not what was published.
    pub(super) fn ask<V>(&self, store: &Store, question: impl Fn(&Reader<'_>) -> Result<V>) -> Result<V>
    where
        for<'v> &'v V: IntoIterator<Item = &'v IndexedVersion>,
    {
        let agreed = store.ask(|reader| {
            let versions = question(reader)?;
            let contradicted = (&versions).into_iter().any(|version| self.contradicts(version));
            if contradicted { Err(index::contradiction()) } else { Ok(versions) }
        });
        match agreed {
            Err(error) if index::is_damage(&error) => store.ask(question),
            other => other,
        }
    }

    fn contradicts(&self, version: &IndexedVersion) -> bool {
        let known = self.marks.versions.get(&version.facts.name);
        known.is_some_and(|known| known.import_number == version.facts.import_number && known.digest != version.digest)
    }

    /// All that is known of one version; `indexed` is absent if its manifest is, or cannot be trusted.
    pub(super) fn describe(
        &self,
        store: &Store,
        name: &VersionName,
        indexed: Option<IndexedVersion>,
    ) -> Result<Listed> {
        let indexed = indexed.filter(|version| !self.contradicts(version));
        let known = self.marks.versions.get(name).filter(|_| indexed.is_none());
        let has_manifest = indexed.is_some() || store.manifests()?.stat(name)?.is_some();
        let has_tree = store.versions().try_stat(name)?.is_some_and(|stat| stat.kind == Kind::Directory);
        // What the history remembers of a name says nothing about a directory that was made by hand.
        let known = known.filter(|_| has_manifest);
        let digest = indexed.as_ref().map(|version| version.digest).or(known.map(|known| known.digest));
        let import_number = indexed.as_ref().map(|version| version.facts.import_number);
        let standing = digest.map(|digest| self.marks.standing(&digest)).unwrap_or_default();
        let state = match () {
            () if !has_manifest => State::Unmanaged,
            () if indexed.is_none() => match store.manifests()?.facts(name) {
                Err(Error::Newer { .. }) => State::Newer,
                _ => State::DamagedManifest,
            },
            () if !has_tree => State::MissingTree,
            () if self.marks.damaged.contains_key(name) || self.distrusted.contains(name) => State::Damaged,
            () if standing.bad.is_some() => State::Bad,
            () if standing.good => State::Good,
            () => State::Unconfirmed,
        };
        Ok(Listed {
            name: name.clone(),
            state,
            roles: self.roles.of(name),
            pinned: self.marks.pins.contains(name),
            digest,
            import_number: import_number.or(known.map(|known| known.import_number)),
            published: indexed.map(|version| Published { facts: version.facts, counts: version.counts }),
            standing,
            notes: self.marks.notes.get(name).cloned().unwrap_or_default(),
        })
    }
}

/// The versions that refer to an object that is revoked. The index knows who has the contents; the manifests of those are
/// read, since the same bytes can be an object with another mode.
fn distrusted(store: &Store, marks: &Marks) -> Result<BTreeSet<VersionName>> {
    let revoked = Revoked::of(marks);
    if revoked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let contents: BTreeSet<ContentId> = revoked.iter().map(|key| key.content).collect();
    let mut holders = store.ask(|reader| {
        let holders = contents.iter().map(|content| reader.versions_with_content(content));
        Ok(holders.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect::<BTreeSet<VersionName>>())
    })?;
    let manifests = store.manifests()?;
    holders.retain(|name| {
        let mut refers = false;
        let walked = manifests.walk(name, |_, step| {
            if let Step::File(file) = step {
                refers |= revoked.contains(&file.key());
            }
        });
        // One that cannot be read is damaged in another way.
        walked.is_ok() && refers
    });
    Ok(holders)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests set the scene with whatever serves")]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::model::event::Evidence;
    use crate::model::{Action, Event};
    use crate::observe::Silent;
    use crate::ops::import::{Input, Options, import};
    use crate::store::Settings;
    use crate::store::create::{CreateOptions, create};

    #[test]
    fn what_the_history_holds_of_a_digest_is_told_of_every_version_that_has_it() {
        let temporary = tempfile::tempdir().unwrap();
        let source = temporary.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "1").unwrap();
        let layout = Layout::new(temporary.path().join("root"), None);
        let (store, _) = create(layout, Settings::default(), CreateOptions::default()).unwrap();
        for name in ["v1", "v2"] {
            let input = Input::Path(source.clone());
            import(&store, input, &name.parse().unwrap(), &Options::default(), &Silent).unwrap();
        }
        let listed = || list(&store, Sort::Import).unwrap();
        let states = || listed().iter().map(|version| version.state).collect::<Vec<_>>();
        assert_eq!(states(), [State::Unconfirmed; 2]);
        let (name, digest) = (listed()[0].name.clone(), listed()[0].digest);
        let record = |event: Event| store.record(vec![event]).unwrap();
        record(Event::about(Action::Good, &name, digest));
        assert_eq!(states(), [State::Good; 2]);
        let evidence = Evidence { check: "http".into(), ..Evidence::default() };
        record(Event { evidence: Some(evidence), ..Event::about(Action::Bad, &name, digest) });
        record(Event::about(Action::Pin, &name, None));
        record(Event { text: Some("loses packets".into()), ..Event::about(Action::Note, &name, None) });
        assert_eq!(states(), [State::Bad; 2]);
        let told: Vec<_> = listed().iter().map(|version| (version.pinned, version.note().to_owned())).collect();
        assert_eq!(told, [(true, "loses packets".to_owned()), (false, String::new())]);
        let shown = crate::ops::show::show(&store, &crate::model::Selector::Name(name)).unwrap();
        let told: Vec<Action> = shown.events.iter().map(|event| event.action).collect();
        assert_eq!(told, [Action::Note, Action::Pin, Action::Bad, Action::Good, Action::Import]);
        std::fs::remove_dir_all(temporary.path().join("root/versions/v1")).unwrap();
        assert_eq!(states(), [State::MissingTree, State::Bad]);
    }
}
