//! The live view in a terminal: a look a second, until q, Esc, Ctrl-C or a signal.

use std::sync::Arc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::AGAIN;
use crate::exit::{Answer, Failure};
use crate::overview::{History, Looker, Overview, Paint, draw};

/// How soon a key is noticed.
const KEYS: Duration = Duration::from_millis(50);

/// What the terminal says.
enum Said {
    Quit,
    Resized,
}

/// Shows the pipeline until somebody has seen enough. The terminal is given back as it was, also after a panic.
pub(super) async fn run(looker: Looker) -> Result<Answer, Failure> {
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::new(format!("cannot use this terminal: {error}")).with_hint("leave out --watch"))?;
    let watched = watch(&mut terminal, Arc::new(looker)).await;
    ratatui::restore();
    watched.map_err(|error| Failure::new(format!("cannot draw on this terminal: {error}")))?;
    Ok(Answer::Fine)
}

async fn watch(terminal: &mut DefaultTerminal, looker: Arc<Looker>) -> std::io::Result<()> {
    let paint = Paint(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let (mut keys, mut overviews) = (keys(), looks(looker));
    let mut history = History::default();
    let mut last: Option<Overview> = None;
    loop {
        terminal.draw(|frame| match &last {
            Some(overview) => draw(frame, overview, &history, paint),
            None => frame.render_widget("looking …", frame.area()),
        })?;
        tokio::select! {
            said = keys.recv() => match said {
                Some(Said::Resized) => {}
                Some(Said::Quit) | None => return Ok(()),
            },
            () = crate::services::a_signal() => return Ok(()),
            overview = overviews.recv() => if let Some(overview) = overview {
                history.look(&overview);
                last = Some(overview);
            },
        }
    }
}

/// Looks on a task of its own, so that a server that does not answer does not hold up the keys.
fn looks(looker: Arc<Looker>) -> mpsc::Receiver<Overview> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(looker.look().await).await.is_ok() {
            tokio::time::sleep(AGAIN).await;
        }
    });
    receiver
}

/// Keys, from a thread of their own: reading them blocks.
fn keys() -> mpsc::Receiver<Said> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let said = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let said = match said {
                Ok(Event::Key(key)) if quits(key) => Said::Quit,
                Ok(Event::Resize(..)) => Said::Resized,
                Ok(_) => continue,
                Err(_) => Said::Quit,
            };
            if sender.blocking_send(said).is_err() {
                return;
            }
        }
    });
    receiver
}

fn quits(key: KeyEvent) -> bool {
    key.kind == KeyEventKind::Press
        && (matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
            || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)))
}
