//! The report of a comparison.

use std::fmt;

/// A document with differing points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Namespace and `_id`.
    pub document: String,
    /// The difference.
    pub what: String,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Documents in the source.
    pub documents: u64,
    /// Points in the index.
    pub points: u64,
    /// Documents without a point.
    pub missing: Vec<String>,
    /// Documents with differing or incomplete points.
    pub stale: Vec<Difference>,
    /// Documents in the index but not in the source.
    pub extra: Vec<String>,
    /// Chunks after the last of their document.
    pub surplus_chunks: Vec<String>,
    /// Documents that cannot be indexed and have no point, as expected.
    pub parked: Vec<String>,
}

impl Report {
    /// Whether the index exactly matches the source.
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty() && self.extra.is_empty() && self.surplus_chunks.is_empty()
    }
}

/// Maximum differences shown per kind.
const SHOWN: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_equal() { "equal" } else { "different" };
        write!(
            f,
            "{verdict}: {} documents, {} points, {} missing, {} stale, {} extra, {} surplus chunks",
            self.documents,
            self.points,
            self.missing.len(),
            self.stale.len(),
            self.extra.len(),
            self.surplus_chunks.len()
        )?;
        let stale: Vec<String> =
            self.stale.iter().map(|Difference { document, what }| format!("{document}: {what}")).collect();
        for (kind, found) in [
            ("missing", &self.missing),
            ("stale", &stale),
            ("extra", &self.extra),
            ("surplus chunk", &self.surplus_chunks),
        ] {
            for one in found.iter().take(SHOWN) {
                write!(f, "\n  {kind} {one}")?;
            }
            if found.len() > SHOWN {
                write!(f, "\n  {kind} … and {} more", found.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_lists_first_differences_of_each_kind() {
        let mut report = Report { documents: 20, points: 9, ..Report::default() };
        assert!(report.is_equal());
        report.missing = (0..12).map(|key| format!("shop.tickets {key}")).collect();
        report.stale.push(Difference { document: "shop.tickets 13".into(), what: "chunk 0 is missing".into() });
        assert!(!report.is_equal());
        let text = report.to_string();
        assert!(
            text.starts_with("different: 20 documents, 9 points, 12 missing, 1 stale, 0 extra, 0 surplus chunks\n")
        );
        assert!(text.contains("missing shop.tickets 9\n") && text.contains("missing … and 2 more"), "{text}");
        assert!(text.ends_with("stale shop.tickets 13: chunk 0 is missing"), "{text}");
    }
}
