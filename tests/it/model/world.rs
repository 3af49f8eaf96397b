//! What a store is to those who use it, in the plainest words there are: maps and sets, no files.
//!
//! It shares no code with the store. Every operation says how the command must end.

use std::collections::{BTreeMap, BTreeSet};

/// A regular file of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    pub contents: &'static str,
    pub is_executable: bool,
}

/// A release: its files by their paths.
pub type Release = BTreeMap<&'static str, File>;

/// What is held of a release, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub good: bool,
    pub bad: bool,
    pub was_current: bool,
    left: bool,
}

/// How a command must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    NotFound,
    Refused,
}

impl End {
    pub fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::NotFound => 3,
            Self::Refused => 4,
        }
    }
}

/// The store.
#[derive(Debug, Default)]
pub struct World {
    /// By name: the number of the import, and what was imported.
    pub versions: BTreeMap<String, (u32, Release)>,
    imports: u32,
    standings: BTreeMap<Release, Standing>,
    pub pins: BTreeSet<String>,
    pub current: Option<String>,
    pub previous: Option<String>,
    pub factory: Option<String>,
}

impl World {
    /// Names, oldest import first.
    pub fn oldest_first(&self) -> Vec<&String> {
        let mut names: Vec<&String> = self.versions.keys().collect();
        names.sort_by_key(|name| self.versions[*name].0);
        names
    }

    pub fn standing(&self, name: &str) -> Standing {
        self.standings.get(&self.versions[name].1).copied().unwrap_or_default()
    }

    fn standing_of(&mut self, name: &str) -> &mut Standing {
        self.standings.entry(self.versions[name].1.clone()).or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.versions.contains_key(name)
    }

    pub fn roles(&self, name: &str) -> Vec<&'static str> {
        let roles = [("current", &self.current), ("previous", &self.previous), ("factory", &self.factory)];
        roles.into_iter().filter(|(_, version)| version.as_deref() == Some(name)).map(|(role, _)| role).collect()
    }

    pub fn import(&mut self, name: &str, release: &Release) -> End {
        match self.versions.get(name) {
            Some((_, known)) if known == release => return End::Done,
            Some(_) => return End::Refused,
            None => {}
        }
        self.imports += 1;
        self.versions.insert(name.to_owned(), (self.imports, release.clone()));
        End::Done
    }

    /// How a switch ends that is not made.
    fn no_switch(&self, name: &str, force: bool) -> Option<End> {
        match self.has(name) {
            false => Some(End::NotFound),
            true if self.current.as_deref() == Some(name) => Some(End::Done),
            true if self.standing(name).bad && !force => Some(End::Refused),
            true => None,
        }
    }

    pub fn activate(&mut self, name: &str, force: bool) -> End {
        if let Some(end) = self.no_switch(name, force) {
            return end;
        }
        if let Some(from) = self.current.replace(name.to_owned()) {
            self.previous = Some(from);
        }
        let standing = self.standing_of(name);
        (standing.was_current, standing.left) = (true, false);
        End::Done
    }

    pub fn rollback(&mut self, force: bool) -> End {
        let roles = [self.previous.clone(), self.factory.clone()];
        let ways = roles.into_iter().flatten().filter(|name| self.current.as_ref() != Some(name));
        let ways: Vec<String> = ways.collect();
        let good = ways.iter().find(|name| force || !self.standing(name).bad);
        match good.cloned() {
            Some(to) => self.go_back(&to),
            None if ways.is_empty() => End::NotFound,
            None => End::Refused,
        }
    }

    pub fn rollback_to(&mut self, name: &str, force: bool) -> End {
        if let Some(end) = self.no_switch(name, force) {
            return end;
        }
        self.go_back(name)
    }

    fn go_back(&mut self, to: &str) -> End {
        let from = self.current.replace(to.to_owned());
        let standing = self.standing_of(to);
        (standing.was_current, standing.left) = (true, false);
        if let Some(from) = from {
            let release = self.versions[&from].1.clone();
            let same_as = |name: &str| self.versions[name].1 == release;
            let is_kept = same_as(to) || self.factory.as_deref().is_some_and(same_as);
            let standing = self.standing_of(&from);
            standing.left = true;
            if !is_kept {
                (standing.bad, standing.good) = (true, false);
            }
        }
        let number = self.versions[to].0;
        let names = self.oldest_first();
        let mut older = names.into_iter().rev().filter(|name| self.versions[*name].0 < number);
        self.previous = older.find(|name| !self.standing(name).bad).cloned();
        End::Done
    }

    pub fn confirm(&mut self, name: Option<&str>) -> End {
        let Some(name) = name.map(str::to_owned).or_else(|| self.current.clone()).filter(|name| self.has(name)) else {
            return End::NotFound;
        };
        let standing = self.standing_of(&name);
        (standing.good, standing.bad) = (true, false);
        standing.left = false;
        End::Done
    }

    pub fn set_factory(&mut self, name: &str, replace: bool) -> End {
        if !self.has(name) {
            return End::NotFound;
        }
        let other = self.factory.as_deref().is_some_and(|factory| factory != name);
        if self.factory.as_deref() != Some(name) && (self.standing(name).bad || (other && !replace)) {
            return End::Refused;
        }
        self.factory = Some(name.to_owned());
        End::Done
    }

    pub fn pin(&mut self, name: &str) -> End {
        match self.has(name) {
            true => {
                self.pins.insert(name.to_owned());
                End::Done
            }
            false => End::NotFound,
        }
    }

    pub fn unpin(&mut self, name: &str) -> End {
        self.pins.remove(name);
        if self.has(name) { End::Done } else { End::NotFound }
    }

    /// What nobody may remove.
    fn protected(&self) -> BTreeSet<String> {
        let roles = [&self.current, &self.previous, &self.factory].into_iter().flatten();
        let mut protected: BTreeSet<String> = roles.chain(&self.pins).cloned().collect();
        let newest = |holds: &dyn Fn(Standing) -> bool| {
            self.oldest_first().into_iter().rev().find(|name| holds(self.standing(name))).cloned()
        };
        match newest(&|standing| standing.good) {
            Some(good) => drop(protected.insert(good)),
            None => {
                let ran = |standing: Standing| standing.was_current && !standing.left;
                protected.extend(newest(&ran));
                protected.extend(newest(&|standing| ran(standing) && !standing.bad));
            }
        }
        protected
    }

    /// The tree is gone: the version goes as well unless it is protected or good. Gives what goes.
    pub fn forget_lost(&mut self, name: &str) -> Vec<String> {
        if self.protected().contains(name) || self.standing(name).good {
            return Vec::new();
        }
        self.versions.remove(name);
        vec![name.to_owned()]
    }

    pub fn remove(&mut self, name: &str) -> End {
        if !self.has(name) {
            return End::NotFound;
        }
        if self.protected().contains(name) {
            return End::Refused;
        }
        self.versions.remove(name);
        End::Done
    }

    /// Keeps the newest so many; gives what goes, oldest first.
    pub fn gc(&mut self, keep_last: usize) -> Vec<String> {
        let mut kept = self.protected();
        let sound = self.oldest_first().into_iter().rev().filter(|name| !self.standing(name).bad);
        kept.extend(sound.take(keep_last).cloned());
        let gone: Vec<String> = self.oldest_first().into_iter().filter(|name| !kept.contains(*name)).cloned().collect();
        for name in &gone {
            self.versions.remove(name);
        }
        gone
    }

    /// How two versions differ: by path, in order.
    pub fn diff(&self, before: &str, after: &str) -> Vec<(String, &'static str)> {
        let (before, after) = (everything(&self.versions[before].1), everything(&self.versions[after].1));
        let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let kind = |path: &String| match (before.get(path), after.get(path)) {
            (None, _) => Some("added"),
            (_, None) => Some("removed"),
            (before, after) if before == after => None,
            (Some(Some(before)), Some(Some(after))) if before.contents == after.contents => Some("metadata"),
            _ => Some("modified"),
        };
        paths.into_iter().filter_map(|path| Some((path.clone(), kind(path)?))).collect()
    }
}

/// Files and the directories that they stand in.
fn everything(release: &Release) -> BTreeMap<String, Option<File>> {
    let mut all = BTreeMap::new();
    for (path, file) in release {
        all.insert((*path).to_owned(), Some(file.clone()));
        for (at, _) in path.match_indices('/') {
            all.insert(path[..at].to_owned(), None);
        }
    }
    all
}
