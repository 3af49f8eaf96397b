//! Globs over paths inside a version: what `find` looks for, and which paths a configuration calls private or shared.
//!
//! Paths are bytes. `*` and `?` stay within one name (`?` takes one byte), `**` as a whole component takes any number
//! of directories, `[ab]` and `{a,b}` choose, a backslash takes the next character as it is. A class excludes only what it
//! names: to keep `[!a]` within one name, write `[!a/]`.
//!
//! **Invariant:** a pattern that was accepted cannot fail later, and cannot name anything outside a version.

use globset::{Candidate, GlobBuilder, GlobSet};

use super::name::{EntryName, TreePath};
use crate::error::Shown;

/// Longest pattern in bytes: as long as the longest path that a system call takes.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {} {problem}", Shown::text(pattern))]
pub struct GlobError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it, to stand behind the pattern.
    pub problem: String,
}

/// One pattern, as `find` takes it: with a slash it must match the whole path, without one the base name of any path.
///
/// `*.so` finds `lib/a.so`; `lib/*.so` finds `lib/a.so` and not `lib/x/a.so`; `lib/**/*.so` finds both. A leading
/// slash means the top of the version: `/*.so` finds only what lies there.
#[derive(Debug, Clone)]
pub struct Glob {
    matcher: GlobSet,
    whole_path: bool,
    /// Names from the top down that every match begins with.
    leading: Vec<Box<[u8]>>,
}

/// What makes more of a component than the name it spells, anywhere in it.
const SPECIAL: [char; 8] = ['*', '?', '[', ']', '{', '}', ',', '\\'];

impl Glob {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    ///
    /// [`GlobError`] says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let whole_path = pattern.contains('/');
        let relative = pattern.strip_prefix('/').unwrap_or(pattern);
        let plain = |part: &&str| whole_path && !part.contains(SPECIAL);
        let leading = relative.split('/').take_while(plain).map(|part| part.as_bytes().into()).collect();
        Ok(Self { matcher: compile(pattern, relative)?, whole_path, leading })
    }

    /// Whether the pattern finds this path.
    pub fn matches(&self, path: &TreePath) -> bool {
        let bytes = path.as_bytes();
        let base = bytes.rsplit(|b| *b == b'/').next().unwrap_or(bytes);
        !bytes.is_empty() && is_match(&self.matcher, if self.whole_path { bytes } else { base })
    }

    /// Whether the pattern may find a path whose component number `depth` (from 0) is this one. `false` only if it
    /// certainly finds none, so that a search need not look there.
    pub fn may_match(&self, depth: usize, name: &EntryName) -> bool {
        self.leading.get(depth).is_none_or(|leading| **leading == *name.as_bytes())
    }
}

/// Patterns of whole paths, relative to a version's top: the `private` and `shared` of a configuration.
///
/// Here a pattern without a slash names something at the top, since a service's state has one place. `dir` names the
/// directory (and thereby all below it, see [`PathPatterns::covering`]), `dir/**` everything below it and not itself.
#[derive(Debug, Clone, Default)]
pub struct PathPatterns {
    patterns: Vec<String>,
    matcher: GlobSet,
}

impl PathPatterns {
    /// Checks and compiles patterns.
    ///
    /// # Errors
    ///
    /// The position of the first pattern that cannot be used, and why: [`GlobError`].
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, (usize, GlobError)> {
        let mut builder = GlobSet::builder();
        for (at, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref();
            if pattern.starts_with('/') {
                let problem = "must be relative to the top of a version: leave out the leading slash".into();
                return Err((at, GlobError { pattern: pattern.to_owned(), problem }));
            }
            // One by one first: an error of the whole set would not say whose it is.
            compile(pattern, pattern).map_err(|error| (at, error))?;
            builder.add(build(pattern, pattern).map_err(|error| (at, error))?);
        }
        let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.as_ref().to_owned()).collect();
        let last = patterns.len().saturating_sub(1);
        let matcher = builder.build().map_err(|error| {
            let pattern = patterns.last().cloned().unwrap_or_default();
            (last, GlobError { pattern, problem: format!("cannot be used with the others: {}", error.kind()) })
        })?;
        Ok(Self { patterns, matcher })
    }

    /// The patterns as given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern matches this very path.
    pub fn matches(&self, path: &TreePath) -> bool {
        !path.is_top() && is_match(&self.matcher, path.as_bytes())
    }

    /// The topmost of this path and the directories above it that a pattern matches: what stands for the path.
    pub fn covering(&self, path: &TreePath) -> Option<TreePath> {
        if self.is_empty() || path.is_top() {
            return None;
        }
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([bytes.len()]);
        let end = ends.into_iter().find(|end| is_match(&self.matcher, &bytes[..*end]))?;
        let mut covering = path.clone();
        while covering.as_bytes().len() > end {
            covering.pop();
        }
        Some(covering)
    }

    /// Whether a pattern matches this path or a directory above it.
    pub fn covers(&self, path: &TreePath) -> bool {
        self.covering(path).is_some()
    }
}

impl PartialEq for PathPatterns {
    /// Patterns mean what they spell.
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for PathPatterns {}

fn is_match(matcher: &GlobSet, bytes: &[u8]) -> bool {
    matcher.is_match_candidate(&Candidate::from_bytes(bytes))
}

fn build(pattern: &str, relative: &str) -> Result<globset::Glob, GlobError> {
    let fail = |problem: String| Err(GlobError { pattern: pattern.to_owned(), problem });
    if relative.is_empty() {
        return fail("is empty".into());
    }
    if relative.len() > MAX_PATTERN_BYTES {
        return fail(format!("is longer than {MAX_PATTERN_BYTES} bytes"));
    }
    if relative.contains('\0') {
        return fail("holds a NUL, which no path can".into());
    }
    match relative.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") => return fail("holds an empty component, which no path has: see its slashes".into()),
        Some(part) => return fail(format!("holds the component {part}, which no path inside a version has")),
        None => {}
    }
    let built = GlobBuilder::new(relative).literal_separator(true).backslash_escape(true).build();
    built.map_err(|error| GlobError { pattern: pattern.to_owned(), problem: format!("is no glob: {}", error.kind()) })
}

/// Goes through [`GlobSet`], which reports an expression that grows too large; a lone matcher would panic.
fn compile(pattern: &str, relative: &str) -> Result<GlobSet, GlobError> {
    GlobSet::builder().add(build(pattern, relative)?).build().map_err(|error| GlobError {
        pattern: pattern.to_owned(),
        problem: format!("cannot be used: {}", error.kind()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(bytes: impl AsRef<[u8]>) -> TreePath {
        TreePath::parse(bytes.as_ref()).unwrap()
    }

    fn found<'a>(pattern: &str, paths: &[&'a str]) -> Vec<&'a str> {
        let glob = Glob::new(pattern).unwrap();
        paths.iter().copied().filter(|bytes| glob.matches(&path(bytes))).collect()
    }

    const PATHS: [&str; 6] = ["a.so", "lib/a.so", "lib/x/a.so", "lib/x/y/a.so", "lib/a.so.1", "xlib/a.so"];

    #[test]
    fn a_pattern_without_a_slash_matches_base_names() {
        assert_eq!(found("*.so", &PATHS), ["a.so", "lib/a.so", "lib/x/a.so", "lib/x/y/a.so", "xlib/a.so"]);
        assert_eq!(found("x", &["x", "x/y", "y/x", "xx"]), ["x", "y/x"]);
        assert_eq!(found("a.so*", &["lib/a.so.1", "a.so/b"]), ["lib/a.so.1"]);
    }

    #[test]
    fn a_pattern_with_a_slash_matches_whole_paths() {
        assert_eq!(found("lib/*.so", &PATHS), ["lib/a.so"]);
        assert_eq!(found("/*.so", &PATHS), ["a.so"]);
        assert_eq!(found("lib/**/*.so", &PATHS), ["lib/a.so", "lib/x/a.so", "lib/x/y/a.so"]);
        assert_eq!(found("**/x/*", &PATHS), ["lib/x/a.so"]);
        assert_eq!(found("lib/x/**", &["lib/x", "lib/x/a", "lib/x/y/a", "lib/xy"]), ["lib/x/a", "lib/x/y/a"]);
        assert_eq!(found("/lib", &["lib", "usr/lib"]), ["lib"]);
    }

    #[test]
    fn a_pattern_chooses_and_escapes() {
        assert_eq!(found("{a,b}[0-9]", &["a1", "b2", "c3", "a"]), ["a1", "b2"]);
        assert_eq!(found("a\\*", &["a*", "ab"]), ["a*"]);
        assert_eq!(found("[!a]", &["a", "b", "d/c"]), ["b", "d/c"]);
        assert_eq!(found("?", &["a", "ab"]), ["a"]);
        assert_eq!(found("d/x[!a/]y", &["d/x/y", "d/xby", "d/xay"]), ["d/xby"]);
    }

    #[test]
    fn names_need_not_be_text_nor_tame() {
        let glob = Glob::new("a?b*").unwrap();
        assert!(glob.matches(&path(b"d\xff/a\xffb\xfe")));
        assert!(glob.matches(&path(b"a\nb\n")));
        assert!(Glob::new("*.").unwrap().matches(&path(b"ends.with.")));
        assert!(Glob::new("*").unwrap().matches(&path(b".hidden")), "as in find(1)");
        assert!(!Glob::new("**").unwrap().matches(&TreePath::top()));
    }

    #[test]
    fn a_search_looks_only_where_a_match_can_be() {
        let may = |pattern: &str, depth, name: &[u8]| {
            Glob::new(pattern).unwrap().may_match(depth, &EntryName::new(name).unwrap())
        };
        assert!(may("lib/x/*.so", 0, b"lib") && !may("lib/x/*.so", 0, b"bin"));
        assert!(may("lib/x/*.so", 1, b"x") && !may("lib/x/*.so", 1, b"y"));
        assert!(may("lib/x/*.so", 2, b"anything"));
        assert!(may("x", 0, b"anything"), "without a slash it may be anywhere");
        assert!(may("{lib/x,bin}/a", 0, b"bin") && may("/lib", 1, b"anything"));
    }

    #[test]
    fn patterns_that_cannot_match_are_refused() {
        for pattern in ["", "/", "a//b", "a/", "../a", "a/./b", "a/..", "a\0b", "[a", "{a", "a}", "a\\", "//a"] {
            assert!(Glob::new(pattern).is_err(), "{pattern:?}");
        }
        assert!(Glob::new(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
        assert_eq!(
            Glob::new("a//b").unwrap_err().to_string(),
            "the pattern a//b holds an empty component, which no path has: see its slashes"
        );
        assert!(Glob::new("[z-a]").unwrap_err().to_string().starts_with("the pattern [z-a] is no glob: "));
        let (at, error) = PathPatterns::new(&["a", "/b"]).unwrap_err();
        assert_eq!((at, error.pattern.as_str()), (1, "/b"));
    }

    #[test]
    fn a_pattern_that_grows_too_large_is_an_error_and_no_panic() {
        let classes = "[!a]{a,b,c,d}**".repeat(270);
        let _ = Glob::new(&classes);
        let nested = format!("{}{}", "{a,".repeat(1000), "}".repeat(1000));
        let _ = Glob::new(&nested);
    }

    #[test]
    fn a_matched_directory_covers_everything_below_it() {
        let shared = PathPatterns::new(&["services/*/state", "cache/**"]).unwrap();
        assert!(shared.matches(&path("services/api/state")));
        assert!(!shared.matches(&path("services/api/state/db")));
        for (below, covering) in [
            ("services/api/state", Some("services/api/state")),
            ("services/api/state/db/1", Some("services/api/state")),
            ("services/api", None),
            ("services/api/statement", None),
            ("services/api/x/state", None),
            ("state", None),
            ("cache", None),
            ("cache/a", Some("cache/a")),
            ("cache/a/b", Some("cache/a")),
        ] {
            assert_eq!(shared.covering(&path(below)), covering.map(path), "{below}");
        }
        assert!(!shared.covers(&TreePath::top()));
        assert!(!PathPatterns::default().covers(&path("a")));
    }

    #[test]
    fn a_pattern_of_a_configuration_is_anchored_at_the_top() {
        let private = PathPatterns::new(&["*.db"]).unwrap();
        assert!(private.matches(&path("a.db")) && !private.matches(&path("d/a.db")));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a/*?\\[\\]{},!^\\\\.-]{0,24}", bytes in "[a/.]{0,8}") {
            if let Ok(glob) = Glob::new(&pattern) && let Ok(path) = TreePath::parse(bytes.as_bytes()) {
                let found = glob.matches(&path);
                let names = path.components().map(|name| EntryName::new(name).unwrap());
                prop_assert!(!found || names.enumerate().all(|(depth, name)| glob.may_match(depth, &name)));
            }
            let _ = PathPatterns::new(&[pattern]);
        }

        #[test]
        fn an_escaped_path_matches_itself_only(parts in proptest::collection::vec("[a-c*?{}!,-]{1,3}", 2..4), other in "[a-c/*]{1,9}") {
            let bytes = parts.join("/");
            let escaped: String = bytes.chars().map(|c| if c == '/' { c.to_string() } else { format!("\\{c}") }).collect();
            let glob = Glob::new(&escaped).unwrap();
            prop_assert!(glob.matches(&path(&bytes)));
            if let Ok(other) = TreePath::parse(other.as_bytes()) {
                prop_assert_eq!(glob.matches(&other), other.as_bytes() == bytes.as_bytes());
            }
        }
    }
}
