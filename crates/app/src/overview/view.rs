//! The live view of `status --watch`: the answer, the stages with what they carry, the problems, and who works on it.
//!
//! [`draw`] only draws: the same overview and history give the same picture at any size, which tests hold.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};

use super::problems::{Severity, duration, thousands};
use super::text::bytes;
use super::{Overview, Stage, State, Told};

/// Looks that the sparklines reach back: two minutes at a look a second.
const KEPT: usize = 120;

/// What earlier looks have seen.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Of each stage: entries confirmed a second.
    out: [Vec<u64>; 2],
}

impl History {
    /// Takes a look.
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

/// Which colours there are: none with NO_COLOR.
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

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, overview: &Overview, history: &History, paint: Paint) {
    let header = header(overview, paint);
    let header_height = wrapped_height(&header, frame.area().width);
    let problems = problems(overview, paint);
    let problems_height =
        if problems.lines.is_empty() { 0 } else { wrapped_height(&problems, frame.area().width.saturating_sub(2)) + 2 };
    let [top, stages, below, facts, foot] = Layout::vertical([
        Constraint::Length(header_height),
        Constraint::Length(6),
        Constraint::Length(problems_height),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header).wrap(Wrap { trim: false }), top);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(stages);
    for (at, (area, told)) in [left, right].into_iter().zip(&overview.stages).enumerate() {
        stage(frame, area, at, told, &history.out[at], paint);
    }
    if problems_height > 0 {
        let block = Block::bordered().title(" Problems ").border_style(paint.warn());
        frame.render_widget(Paragraph::new(problems).wrap(Wrap { trim: false }).block(block), below);
    }
    frame.render_widget(Paragraph::new(self::facts(overview, paint)), facts);
    frame.render_widget(Line::styled("q quits", paint.dim()), foot);
}

/// Lines that a text takes at this width. Words that do not fit may make it one more; then the last one is cut.
fn wrapped_height(text: &Text<'_>, width: u16) -> u16 {
    let width = usize::from(width.max(10));
    let lines: usize = text.lines.iter().map(|line| line.width().max(1).div_ceil(width)).sum();
    u16::try_from(lines).unwrap_or(u16::MAX)
}

fn header(overview: &Overview, paint: Paint) -> Text<'static> {
    let verdict = &overview.verdict;
    let (sign, style) = match verdict.state {
        State::Right => ("✔ RIGHT", paint.good()),
        State::Behind => ("● BEHIND", paint.warn()),
        State::Empty => ("○ EMPTY", paint.dim()),
        State::Broken => ("✖ BROKEN", paint.bad()),
        State::Unknown => ("✖ UNKNOWN", paint.bad()),
    };
    let sign = Span::styled(format!(" {sign} "), style.add_modifier(Modifier::REVERSED));
    let mut lines = vec![Line::from(vec![sign, Span::raw("  "), Span::styled(verdict.summary.clone(), STRONG)])];
    if let Some(action) = &verdict.action {
        lines.push(Line::from(vec![Span::styled("  → ", paint.good()), Span::raw(action.clone())]));
    }
    Text::from(lines)
}

fn problems(overview: &Overview, paint: Paint) -> Text<'static> {
    let lines = overview.problems.iter().map(|problem| {
        let style = if problem.severity == Severity::Critical { paint.bad() } else { paint.warn() };
        let code = Span::styled(format!(" [{}]", problem.code), paint.dim());
        Line::from(vec![Span::styled("! ", style), Span::raw(problem.message.clone()), code])
    });
    Text::from(lines.collect::<Vec<_>>())
}

/// A stage: how much waits, as a bar of what its stream holds, and how fast it goes.
fn stage(frame: &mut Frame<'_>, area: Rect, at: usize, told: &Told<Stage>, out: &[u64], paint: Paint) {
    let names = [" MongoDB → stage 1 → embedder ", " embedder → stage 2 → Qdrant "];
    let block = Block::bordered().title(names[at]);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let stage = match told {
        Told::Known(stage) => stage,
        Told::Unknown(error) => {
            let error = Text::styled(error.clone(), paint.bad());
            frame.render_widget(Paragraph::new(error).wrap(Wrap { trim: true }), inner);
            return;
        }
    };
    let [bar, numbers, people, spark] = Layout::vertical([Constraint::Length(1); 4]).areas(inner);
    let waiting = stage.backlog as f64 / stage.status.length.max(stage.backlog).max(1) as f64;
    let style = if stage.backlog == 0 { paint.good() } else { paint.warn() };
    let label = format!("{} waiting", thousands(stage.backlog));
    frame.render_widget(Gauge::default().ratio(waiting.clamp(0.0, 1.0)).gauge_style(style).label(label), bar);
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let eta = match stage.eta_seconds {
        _ if stage.backlog == 0 => "done".to_owned(),
        Some(seconds) => format!("{} left", duration(seconds)),
        None => "no end in sight".to_owned(),
    };
    let line = format!("{}/s in  {}/s out  {eta}", rate(stage.in_per_second), rate(stage.out_per_second));
    frame.render_widget(Line::raw(line), numbers);
    let oldest =
        stage.status.oldest_age_ms.map_or_else(String::new, |ms| format!("  oldest {}", duration(ms as f64 / 1e3)));
    let mut line =
        vec![Span::raw(format!("{} in work  {} consumers{oldest}", thousands(stage.status.pending), stage.alive))];
    if stage.status.dead_letters > 0 {
        line.push(Span::styled(format!("  {} parked", thousands(stage.status.dead_letters)), paint.warn()));
    }
    frame.render_widget(Line::from(line), people);
    // The newest looks, at the right edge.
    let width = usize::from(spark.width);
    let mut looks = vec![0; width.saturating_sub(out.len())];
    looks.extend(&out[out.len().saturating_sub(width)..]);
    frame.render_widget(Sparkline::default().data(looks).style(paint.good()), spark);
}

fn facts(overview: &Overview, paint: Paint) -> Text<'static> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut line = |name: &str, told: Result<String, String>| {
        let told = told.map_or_else(|error| Span::styled(error, paint.bad()), Span::raw);
        lines.push(Line::from(vec![Span::styled(format!("{name:<12}"), STRONG), told]));
    };
    line("source", said(&overview.source, super::text::source_line));
    line(
        "redis",
        said(&overview.redis, |redis| {
            let limit = redis.memory_limit_bytes.map_or_else(
                || "no limit".to_owned(),
                |limit| format!("{} % of {}", redis.memory_bytes * 100 / limit.max(1), bytes(limit)),
            );
            format!("{} in use, {limit}", bytes(redis.memory_bytes))
        }),
    );
    line(
        "embedder",
        said(&overview.embedder, |embedder| {
            let rate = embedder.tokens_per_second.map_or_else(String::new, |rate| format!(", {rate:.0} tokens/s"));
            let queued =
                embedder.queued_tokens.map_or_else(String::new, |tokens| format!(", {} queued", thousands(tokens)));
            format!("{}, {} dimensions{rate}{queued}", embedder.model, embedder.dimension)
        }),
    );
    line(
        "collection",
        said(&overview.collection, |collection| match (collection.points, &collection.status) {
            (Some(points), Some(status)) => format!("{}: {} points, {status}", collection.name, thousands(points)),
            _ => format!("{}: not there yet", collection.name),
        }),
    );
    if let Some(latency) = &overview.latency {
        let (half, most) = (duration(latency.p50_seconds), duration(latency.p95_seconds));
        line("latency", Ok(format!("{half} (half), {most} (95 of 100) from commit to searchable")));
    }
    if let Some(tokens) = &overview.tokens {
        line("tokens", Ok(format!("{} embedded, {} saved", thousands(tokens.embedded), thousands(tokens.saved))));
    }
    if !overview.services.is_empty() {
        let mut spans = vec![Span::styled(format!("{:<12}", "services"), STRONG)];
        for service in &overview.services {
            let (sign, style) = if service.ready { ("✔", paint.good()) } else { ("✖", paint.bad()) };
            spans.push(Span::styled(format!("{sign} {}  ", service.service), style));
        }
        lines.push(Line::from(spans));
    }
    Text::from(lines)
}

fn said<T>(told: &Told<T>, text: impl FnOnce(&T) -> String) -> Result<String, String> {
    match told {
        Told::Known(told) => Ok(anstream::adapter::strip_str(&text(told)).to_string()),
        Told::Unknown(error) => Err(error.clone()),
    }
}
