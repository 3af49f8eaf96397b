//! Test vectors, read from the specification itself, so that it cannot say one thing and the code do another.

/// The text of the fenced block ```` ```vector NAME ```` in `schema/FORMAT.md`.
pub(crate) fn vector(name: &str) -> &'static str {
    let format = include_str!("../schema/FORMAT.md");
    let begin = format!("\n```vector {name}\n");
    let (_, rest) = format.split_once(&begin).unwrap_or_else(|| panic!("no vector {name} in FORMAT.md"));
    &rest[..rest.find("\n```\n").expect("the block ends") + 1]
}

/// The bytes of a block of hexadecimal digits, in which `#` begins a comment.
pub(crate) fn vector_bytes(name: &str) -> Vec<u8> {
    let lines = vector(name).lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: String = lines.collect::<String>().split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    assert!(digits.len().is_multiple_of(2), "{name} ends within a byte");
    (0..digits.len()).step_by(2).map(byte).collect()
}
