//! The live view of `status --watch`: verdict, stages with their backlogs, problems, servers and services.
//!
//! [`draw`] is pure: the same overview and history render the same frame at any size, as tests check.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};
use tidewheel_ops::Probe;
use tidewheel_ops::overview::{Overview, Severity, StageOverview, SyncState as State};
use tidewheel_ops::text::{duration, outlook, thousands};
use tidewheel_telemetry::escape;

use super::indexes;
use super::text::bytes;
use crate::printer::counted;

/// Samples in the sparklines: two minutes at one per second.
const KEPT: usize = 120;

/// Earlier samples, for the sparklines.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Entries acknowledged per second, by stage.
    out: [Vec<u64>; 2],
}

impl History {
    /// Adds a sample.
    pub(crate) fn look(&mut self, overview: &Overview) {
        for (kept, stage) in self.out.iter_mut().zip(&overview.stages) {
            let rate = stage.known().and_then(|stage| stage.out_per_second).unwrap_or(0.0);
            kept.push(rate.max(0.0).round() as u64);
            if kept.len() > KEPT {
                kept.remove(0);
            }
        }
    }
}

/// Whether to use colours; off with NO_COLOR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    fn of(self, color: Color) -> Style {
        if self.0 { Style::new().fg(color) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.of(Color::Green)
    }

    fn warn(self) -> Style {
        self.of(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws what fits: verdict, stages, problems, then the rest.
pub(crate) fn draw(frame: &mut Frame<'_>, overview: &Overview, history: &History, paint: Paint) {
    let area = frame.area();
    let boxes = area.width >= BOXES.0 && area.height >= BOXES.1;
    let header = header(overview, paint);
    let header_height = wrapped_height(&header, area.width);
    let stages_height = if boxes { 6 } else { 2 };
    let facts = facts(overview, area.width, paint);
    let within = area.width.saturating_sub(2);
    let height = |problems: &Text<'_>| match problems.lines.len() {
        0 => 0,
        _ if !boxes => wrapped_height(problems, area.width),
        _ => wrapped_height(problems, within) + 2,
    };
    // Actions are shown only if everything else fits, too.
    let rest = header_height + stages_height + u16::try_from(facts.lines.len()).unwrap_or(u16::MAX) + 1;
    let with_actions = problems(overview, true, paint);
    let problems = match height(&with_actions) + rest <= area.height {
        true => with_actions,
        false => problems(overview, false, paint),
    };
    let [top, stages, below, rest, foot] = Layout::vertical([
        Constraint::Length(header_height),
        Constraint::Length(stages_height),
        Constraint::Length(height(&problems)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(header).wrap(Wrap { trim: false }), top);
    if boxes {
        let areas: [Rect; 2] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(stages);
        for (at, (area, probe)) in areas.into_iter().zip(&overview.stages).enumerate() {
            stage(frame, area, at, probe, &history.out[at], paint);
        }
    } else {
        let lines = (1..).zip(&overview.stages).map(|(number, probe)| stage_line(number, probe, paint));
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), stages);
    }
    if !problems.lines.is_empty() {
        let block = match boxes {
            true => Block::bordered().title(" Problems ").border_style(paint.warn()),
            false => Block::new(),
        };
        frame.render_widget(Paragraph::new(problems).wrap(Wrap { trim: false }).block(block), below);
    }
    // Clipped facts would mislead.
    if area.width >= BOXES.0 {
        frame.render_widget(Paragraph::new(facts), rest);
    }
    frame.render_widget(Line::styled("q to quit", paint.dim()), foot);
}

/// Smaller terminals (columns, lines) show a line per stage instead of a box.
const BOXES: (u16, u16) = (60, 16);

/// Lines that a text takes at this width, wrapped at words like a `Paragraph`.
fn wrapped_height(text: &Text<'_>, width: u16) -> u16 {
    let width = usize::from(width.max(10));
    let height = |line: &Line<'_>| {
        let text: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
        let (mut lines, mut column) = (1, 0);
        for (at, word) in text.split(' ').enumerate() {
            let columns = Span::raw(word).width();
            let with_space = columns + usize::from(at > 0);
            if column > 0 && column + with_space > width {
                lines += 1;
                column = columns;
            } else {
                column += with_space;
            }
            // A word longer than a line.
            lines += column.saturating_sub(1) / width;
            column -= column.saturating_sub(1) / width * width;
        }
        lines
    };
    u16::try_from(text.lines.iter().map(height).sum::<usize>()).unwrap_or(u16::MAX)
}

fn header(overview: &Overview, paint: Paint) -> Text<'static> {
    let verdict = &overview.verdict;
    let (sign, style) = match verdict.state {
        State::InSync => ("✔", paint.good()),
        State::Drifted => ("≠", paint.warn()),
        State::Syncing => ("●", paint.warn()),
        State::Empty => ("○", paint.dim()),
        State::Stalled => ("✖", paint.bad()),
        State::Unknown => ("✖", paint.bad()),
    };
    let sign = Span::styled(format!(" {sign} "), style.add_modifier(Modifier::REVERSED));
    let mut first = vec![sign, Span::raw(" "), Span::styled(safe(&verdict.summary), STRONG)];
    if let Some(problem) = overview.problems.first().filter(|_| is_blocked(overview)) {
        first.push(Span::styled(format!(" [{}]", problem.code), paint.dim()));
    }
    let mut lines = vec![Line::from(first)];
    if let Some(action) = &verdict.action {
        lines.push(action_line("  ", action, paint));
    }
    Text::from(lines)
}

/// Whether the verdict already states the first problem.
fn is_blocked(overview: &Overview) -> bool {
    matches!(overview.verdict.state, State::Stalled | State::Unknown)
}

fn action_line(before: &'static str, action: &str, paint: Paint) -> Line<'static> {
    Line::from(vec![Span::raw(before), Span::styled("→ ", paint.good()), Span::raw(safe(action))])
}

/// Problems that the verdict does not state.
fn problems(overview: &Overview, actions: bool, paint: Paint) -> Text<'static> {
    let mut lines = Vec::new();
    for problem in overview.problems.iter().skip(usize::from(is_blocked(overview))) {
        let style = if problem.severity == Severity::Critical { paint.bad() } else { paint.warn() };
        let code = Span::styled(format!(" [{}]", problem.code), paint.dim());
        lines.push(Line::from(vec![Span::styled("! ", style), Span::raw(safe(&problem.message)), code]));
        // The first problem's action is shown below the verdict.
        if actions && Some(&problem.action) != overview.verdict.action.as_ref() {
            lines.push(action_line("  ", &problem.action, paint));
        }
    }
    Text::from(lines)
}

/// A stage as a single line, for small terminals.
fn stage_line(number: usize, probe: &Probe<StageOverview>, paint: Paint) -> Line<'static> {
    let name = Span::styled(format!("stage {number}  "), STRONG);
    let Probe::Known(stage) = probe else { return Line::from(vec![name, Span::styled("unknown", paint.bad())]) };
    let style = if stage.backlog == 0 { paint.good() } else { paint.warn() };
    let mut line = vec![name, Span::styled(format!("{} waiting", thousands(stage.backlog)), style)];
    if let (Some(into), Some(out)) = (stage.in_per_second, stage.out_per_second) {
        line.push(Span::raw(format!(", {into:.0}/s in, {out:.0}/s out")));
    }
    if stage.status.dead_letters > 0 {
        line.push(Span::styled(format!(", {} parked", thousands(stage.status.dead_letters)), paint.warn()));
    }
    Line::from(line)
}

/// A stage as a box: backlog as a share of its stream, rates, consumers, sparkline.
fn stage(frame: &mut Frame<'_>, area: Rect, at: usize, probe: &Probe<StageOverview>, out: &[u64], paint: Paint) {
    let names = [" MongoDB → stage 1 → embedder ", " embedder → stage 2 → Qdrant "];
    let block = Block::bordered().title(names[at]);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let stage = match probe {
        Probe::Known(stage) => stage,
        Probe::Unknown(error) => {
            let error = Text::styled(error.clone(), paint.bad());
            frame.render_widget(Paragraph::new(error).wrap(Wrap { trim: true }), inner);
            return;
        }
    };
    let [bar, numbers, consumers, spark] = Layout::vertical([Constraint::Length(1); 4]).areas(inner);
    let waiting = stage.backlog as f64 / stage.status.length.max(stage.backlog).max(1) as f64;
    let style = if stage.backlog == 0 { paint.good() } else { paint.warn() };
    let label = format!("{} waiting", thousands(stage.backlog));
    frame.render_widget(Gauge::default().ratio(waiting.clamp(0.0, 1.0)).gauge_style(style).label(label), bar);
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let eta = match stage.backlog {
        0 => "done".to_owned(),
        _ => outlook(stage.eta_seconds, stage.out_per_second).unwrap_or_default(),
    };
    let line = format!("{}/s in  {}/s out  {eta}", rate(stage.in_per_second), rate(stage.out_per_second));
    frame.render_widget(Line::raw(line), numbers);
    let mut line = vec![Span::raw(format!("{} in flight", thousands(stage.status.pending)))];
    if stage.status.dead_letters > 0 {
        line.push(Span::styled(format!("  {} parked", thousands(stage.status.dead_letters)), paint.warn()));
    }
    if let Some(age) = stage.status.oldest_age_ms {
        line.push(Span::raw(format!("  oldest {}", duration(age as f64 / 1e3))));
    }
    line.push(Span::raw(format!("  {}", counted(stage.alive, "consumer"))));
    frame.render_widget(Line::from(line), consumers);
    // Newest samples at the right edge.
    let width = usize::from(spark.width);
    let mut looks = vec![0; width.saturating_sub(out.len())];
    looks.extend(&out[out.len().saturating_sub(width)..]);
    frame.render_widget(Sparkline::default().data(looks).style(paint.good()), spark);
}

/// One line of facts per server.
fn facts(overview: &Overview, width: u16, paint: Paint) -> Text<'static> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let room = usize::from(width).saturating_sub(NAMES);
    let mut line = |name: &str, value: Result<String, String>| {
        let value = match value {
            Ok(value) => Span::raw(clipped(&value, room)),
            Err(error) => Span::styled(clipped(&error, room), paint.bad()),
        };
        lines.push(Line::from(vec![Span::styled(format!("{name:<NAMES$}"), STRONG), value]));
    };
    line("source", rendered(&overview.source, super::text::source_line));
    line(
        "redis",
        rendered(&overview.redis, |redis| {
            let limit = redis.memory_limit_bytes.map_or_else(
                || "no limit".to_owned(),
                |limit| format!("{}% of {}", redis.memory_bytes * 100 / limit.max(1), bytes(limit)),
            );
            format!("{} in use, {limit}", bytes(redis.memory_bytes))
        }),
    );
    line(
        "embedder",
        rendered(&overview.embedder, |embedder| {
            let rate = embedder
                .tokens_per_second
                .map_or_else(String::new, |rate| format!(", {} tokens/s", thousands(rate.round() as u64)));
            let queued =
                embedder.queued_tokens.map_or_else(String::new, |tokens| format!(", {} queued", thousands(tokens)));
            format!("{}, {} dimensions{rate}{queued}", embedder.model, embedder.dimension)
        }),
    );
    // Indexes are listed instead.
    if overview.collection.error().is_some() || !indexes::is_listed(overview) {
        line("collection", collection(overview));
    }
    if let Some(latency) = &overview.latency {
        let (p50, p95) = (duration(latency.p50_seconds), duration(latency.p95_seconds));
        line("latency", Ok(format!("p50 {p50} · p95 {p95} from commit to searchable")));
    }
    if let Some(tokens) = &overview.tokens {
        line("tokens", Ok(format!("{} embedded, {} saved", thousands(tokens.embedded), thousands(tokens.saved))));
    }
    if indexes::is_listed(overview) {
        for index in indexes::lines(overview) {
            line("index", Ok(anstream::adapter::strip_str(&index).to_string()));
        }
    }
    if !overview.services.is_empty() {
        let mut spans = vec![Span::styled(format!("{:<NAMES$}", "services"), STRONG)];
        for service in &overview.services {
            let (sign, style) = if service.ready { ("✔", paint.good()) } else { ("✖", paint.bad()) };
            spans.push(Span::styled(format!("{sign} {}  ", safe(&service.service)), style));
        }
        lines.push(Line::from(spans));
    }
    Text::from(lines)
}

/// The collection of the only index.
fn collection(overview: &Overview) -> Result<String, String> {
    rendered(&overview.collection, |collection| match (collection.points, &collection.status) {
        (Some(points), Some(status)) => format!("{}: {} points, {status}", collection.name, thousands(points)),
        _ => format!("{}: not created yet", collection.name),
    })
}

/// Width of the name column.
const NAMES: usize = 12;

fn clipped(text: &str, room: usize) -> String {
    let text = safe(text);
    if text.chars().count() <= room { text } else { text.chars().take(room.max(1) - 1).chain(['…']).collect() }
}

fn rendered<T>(probe: &Probe<T>, text: impl FnOnce(&T) -> String) -> Result<String, String> {
    match probe {
        Probe::Known(value) => Ok(anstream::adapter::strip_str(&text(value)).to_string()),
        Probe::Unknown(error) => Err(error.clone()),
    }
}

/// Escapes a server's message, which may contain control characters.
fn safe(text: &str) -> String {
    escape::line(text).into_owned()
}
