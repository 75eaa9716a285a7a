//! What was measured, as a table.

use std::fmt::Write;

use tidewheel_embed::engine::Precision;
use tidewheel_embed::model::Description;

use crate::SINGLE;

/// The measurements of one engine.
pub(crate) struct Row {
    name: String,
    precision: Precision,
    /// Least and mean cosine with the reference.
    cosine: (f64, f64),
    /// By round: seconds by the clock, and of CPU.
    pub(crate) times: Vec<(f64, f64)>,
    /// By round: operations a second that the machine could do.
    pub(crate) peaks: Vec<f64>,
    /// By length: seconds of single texts.
    pub(crate) singles: [Vec<f64>; SINGLE.len()],
}

impl Row {
    pub(crate) fn new(name: &str, precision: Precision, cosine: (f64, f64)) -> Self {
        let singles = SINGLE.map(|_| Vec::new());
        Self { name: name.to_owned(), precision, cosine, times: Vec::new(), peaks: Vec::new(), singles }
    }
}

/// Least and mean cosine of vectors that lie one after the other.
pub(crate) fn cosines(a: &[f32], b: &[f32], dimension: usize) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosines: Vec<f64> =
        a.chunks(dimension).zip(b.chunks(dimension)).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect();
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    (least, cosines.iter().sum::<f64>() / cosines.len() as f64)
}

/// Multiplications and additions that texts of these lengths need.
pub(crate) fn operations(model: &Description, lengths: &[usize]) -> f64 {
    let linear = 4 * model.hidden * model.hidden + 2 * model.hidden * model.intermediate;
    let tokens: usize = lengths.iter().sum();
    let pairs: usize = lengths.iter().map(|length| length * length).sum();
    2.0 * model.layers as f64 * (linear as f64 * tokens as f64 + 2.0 * model.hidden as f64 * pairs as f64)
}

/// The middle value; 0 of none.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A table in Markdown. Ratios compare CPU time and are medians over the rounds, each with the measurements of the
/// same round.
pub(crate) fn table(rows: &[Row], tokens: usize, operations: f64) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let base = rows
        .iter()
        .position(|row| row.name.starts_with("sentence-transformers") && row.name.ends_with("32"))
        .or_else(|| rows.iter().position(|row| row.name.starts_with("onnxruntime f32")))
        .unwrap_or(0);
    let mut table = format!(
        "| engine | tokens/s | tokens/CPU-s × {cores} | of peak | × {} | cosine min | mean | {} tokens | {} tokens |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        rows.get(base).map_or("", |row| &row.name),
        SINGLE[0],
        SINGLE[1],
    );
    for row in rows {
        let tokens = tokens as f64;
        let clock = median(row.times.iter().map(|(clock, _)| tokens / clock));
        let cpu = median(row.times.iter().map(|(_, cpu)| tokens / cpu * cores));
        let share = median(row.times.iter().zip(&row.peaks).map(|((_, cpu), peak)| operations / cpu * cores / peak));
        let ratio = median(row.times.iter().zip(&rows[base].times).map(|((_, own), (_, base))| base / own));
        let [short, long] = [0, 1].map(|place| 1000.0 * median(row.singles[place].iter().copied()));
        let _ = writeln!(
            table,
            "| {} | {clock:.0} | {cpu:.0} | {:.0}% of {} | {ratio:.2} | {:.7} | {:.7} | {short:.2} ms | {long:.2} ms |",
            row.name,
            share * 100.0,
            row.precision.name(),
            row.cosine.0,
            row.cosine.1,
        );
    }
    table
}
