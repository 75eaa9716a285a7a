//! The live view in a terminal: refreshes every second until q, Esc, Ctrl-C or a signal.

use std::sync::Arc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tidewheel_ops::overview::{Looker, Overview};
use tokio::sync::mpsc;

use super::AGAIN;
use crate::exit::{Answer, Failure};
use crate::overview::{History, Paint, draw};

/// Polling interval of the keyboard.
const KEYS: Duration = Duration::from_millis(50);

/// A terminal event.
enum Input {
    Quit,
    Resized,
}

/// Shows the pipeline until the user quits. The terminal is restored, also after a panic.
pub(super) async fn run(looker: Looker) -> Result<Answer, Failure> {
    let mut terminal = ratatui::try_init().map_err(|error| {
        Failure::new(format!("failed to open the terminal: {error}")).with_hint("run without --watch")
    })?;
    let watched = watch(&mut terminal, Arc::new(looker)).await;
    ratatui::restore();
    watched.map_err(|error| Failure::new(format!("failed to draw on the terminal: {error}")))?;
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
            None => frame.render_widget("loading …", frame.area()),
        })?;
        tokio::select! {
            input = keys.recv() => match input {
                Some(Input::Resized) => {}
                Some(Input::Quit) | None => return Ok(()),
            },
            () = crate::signals::received() => return Ok(()),
            overview = overviews.recv() => if let Some(overview) = overview {
                history.look(&overview);
                last = Some(overview);
            },
        }
    }
}

/// Observes in a separate task, so that an unresponsive server does not block the keyboard.
fn looks(looker: Arc<Looker>) -> mpsc::Receiver<Overview> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while sender.send(looker.look().await).await.is_ok() {
            tokio::time::sleep(AGAIN).await;
        }
    });
    receiver
}

/// Reads keys in a separate thread, because reading blocks.
fn keys() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let event = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let input = match event {
                Ok(Event::Key(key)) if quits(key) => Input::Quit,
                Ok(Event::Resize(..)) => Input::Resized,
                Ok(_) => continue,
                Err(_) => Input::Quit,
            };
            if sender.blocking_send(input).is_err() {
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
