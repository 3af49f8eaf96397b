//! Problems of trees, as `verify`, `factory verify` and `status` show them.

use std::io::{self, Write};

use serde::Serialize;
use tope_store::ops::check::Checked;

use super::json::PathFields;

/// One problem.
#[derive(Debug, Serialize)]
pub struct ProblemDocument {
    kind: &'static str,
    version: String,
    #[serde(flatten)]
    path: PathFields,
    detail: String,
    damage: bool,
}

/// All problems, for a document.
pub fn documents(checked: &Checked) -> Vec<ProblemDocument> {
    let document = |problem: &tope_store::ops::check::Problem| ProblemDocument {
        kind: problem.kind.name(),
        version: problem.version.to_string(),
        path: PathFields::of(&problem.path),
        detail: problem.detail.clone(),
        damage: problem.kind.is_damage(),
    };
    checked.problems.iter().map(document).collect()
}

/// All problems, one per line.
pub fn list(out: &mut dyn Write, checked: &Checked) -> io::Result<()> {
    for problem in &checked.problems {
        writeln!(out, "{}/{problem}", problem.version)?;
    }
    Ok(())
}
