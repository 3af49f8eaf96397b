//! Labels of versions: `key=value`, given at import.
//!
//! A key is `[A-Za-z0-9._/-]{1,64}`; a value holds no control character, so that no label can forge a line of output
//! or of a script's input. Import, configuration and manifests are all checked by [`check`].

use crate::error::Shown;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 64;

/// A label that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There is no `=`, or nothing before it.
    #[error("{} is not a label of the form KEY=VALUE", Shown::text(.0))]
    Form(String),
    /// A key of another form.
    #[error("a label's key is 1 to {MAX_KEY_BYTES} letters, digits and . _ / -, unlike {}", Shown::text(.0))]
    Key(String),
    /// A control character in a value.
    #[error("the value of the label {} holds a control character: {}", .0, Shown::text(.1))]
    Value(String, String),
}

/// Checks a label.
///
/// # Errors
///
/// [`LabelError`] for a key or value that is not allowed.
pub fn check(key: &str, value: &str) -> Result<(), LabelError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(allowed) {
        return Err(LabelError::Key(key.to_owned()));
    }
    if value.chars().any(char::is_control) {
        return Err(LabelError::Value(key.to_owned(), value.to_owned()));
    }
    Ok(())
}

/// Reads a label of the form `KEY=VALUE`.
///
/// # Errors
///
/// [`LabelError`] for a text of another form.
pub fn parse(text: &str) -> Result<(String, String), LabelError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            check(key, value)?;
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(LabelError::Form(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_vectors::vector;

    #[test]
    fn labels_are_read_as_specified() {
        for line in vector("labels").lines() {
            let (quoted, expected) = line.split_once(" => ").unwrap();
            let text: String = serde_json::from_str(quoted).unwrap();
            let read = parse(&text).map_or("refused".to_owned(), |(key, value)| format!("{key}: {value}"));
            assert_eq!(read.trim_end(), expected, "{line}");
        }
    }

    #[test]
    fn a_key_has_at_most_64_bytes() {
        assert_eq!(check(&"k".repeat(64), ""), Ok(()));
        assert!(check(&"k".repeat(65), "").is_err());
    }
}
