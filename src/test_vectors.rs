//! Test vectors, read from the specification itself, so that it cannot say one thing and the code do another.

/// The text of the fenced block ```` ```vector NAME ```` in `schema/FORMAT.md`.
pub(crate) fn vector(name: &str) -> &'static str {
    let format = include_str!("../schema/FORMAT.md");
    let begin = format!("\n```vector {name}\n");
    let (_, rest) = format.split_once(&begin).unwrap_or_else(|| panic!("no vector {name} in FORMAT.md"));
    &rest[..rest.find("\n```\n").expect("the block ends") + 1]
}
