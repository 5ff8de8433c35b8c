//! The page.

use super::Report;
use crate::exit::Failure;

/// The page as HTML.
pub(in crate::bench) fn page(_report: &Report) -> Result<String, Failure> {
    Ok(String::new())
}
