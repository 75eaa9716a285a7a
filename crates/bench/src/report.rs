//! Prints the measurements.

/// Result of one round of one side.
#[derive(Clone, Debug)]
pub struct Run {
    pub documents_per_second: f64,
    /// CPU seconds per 1,000 documents, per service.
    pub cpu: Vec<(String, f64)>,
    /// The same per server.
    pub server_cpu: Vec<(String, f64)>,
    /// Peak resident megabytes of each service.
    pub memory: Vec<(String, f64)>,
    /// Milliseconds from commit to searchable, sorted.
    pub latency: Vec<f64>,
}

impl Run {
    /// Returns CPU seconds per 1,000 documents of all services.
    pub fn services_cpu(&self) -> f64 {
        self.cpu.iter().map(|(_, seconds)| seconds).sum()
    }

    /// Returns the same for all services and servers.
    pub fn all_cpu(&self) -> f64 {
        self.services_cpu() + self.servers_cpu()
    }

    fn servers_cpu(&self) -> f64 {
        self.server_cpu.iter().map(|(_, seconds)| seconds).sum()
    }

    fn percentile(&self, fraction: f64) -> f64 {
        let last = self.latency.len().saturating_sub(1);
        self.latency.get((last as f64 * fraction).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Returns the median; NaN if there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the round with the median throughput.
pub fn middle(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.documents_per_second.total_cmp(&b.documents_per_second));
    runs.swap_remove(runs.len() / 2)
}

/// Prints a column per side, and the ratio of the first to the second.
pub fn print(sides: &[(&str, Run)]) {
    let header: Vec<String> = sides.iter().map(|(name, _)| format!("{name:>12}")).collect();
    println!("{:44}{}{:>10}", "", header.join(""), if sides.len() > 1 { "ratio" } else { "" });
    let line = |label: &str, digits: usize, value: &dyn Fn(&Run) -> f64| {
        let values: Vec<f64> = sides.iter().map(|(_, run)| value(run)).collect();
        let shown = |value: &f64| if value.is_nan() { format!("{:>12}", "-") } else { format!("{value:>12.digits$}") };
        let columns: Vec<String> = values.iter().map(shown).collect();
        let ratio = match values[..] {
            [ours, theirs] if (ours / theirs).is_finite() => format!("{:>10.3}", ours / theirs),
            _ => String::new(),
        };
        println!("{label:44}{}{ratio}", columns.join(""));
    };
    line("documents/s, first insert to all searchable", 0, &|run| run.documents_per_second);
    line("commit to searchable, p50, ms", 1, &|run| run.percentile(0.50));
    line("commit to searchable, p99, ms", 1, &|run| run.percentile(0.99));
    println!("CPU seconds per 1,000 documents");
    for (name, _) in &sides[0].1.cpu {
        line(&format!("  {name}"), 3, &|run| find(&run.cpu, name));
    }
    line("  all services", 3, &Run::services_cpu);
    for (name, _) in &sides[0].1.server_cpu {
        line(&format!("  {name}"), 3, &|run| find(&run.server_cpu, name));
    }
    line("  all services and servers", 3, &Run::all_cpu);
    line("  services' share of all CPU", 3, &|run| run.services_cpu() / run.all_cpu());
    println!("peak resident memory, MB");
    for (name, _) in &sides[0].1.memory {
        line(&format!("  {name}"), 0, &|run| find(&run.memory, name));
    }
}

fn find(values: &[(String, f64)], name: &str) -> f64 {
    values.iter().find(|(other, _)| other == name).map_or(f64::NAN, |(_, value)| *value)
}
