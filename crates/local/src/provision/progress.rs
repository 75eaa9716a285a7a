//! Reports download progress from the size of the files on disk: the download programs do not report it.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Event, Part, Report};

/// Smooth on a terminal, and cheap.
const INTERVAL: Duration = Duration::from_millis(200);

/// Drives `download` to completion and reports the total size of `dir` meanwhile.
pub(super) async fn watch<T>(
    part: Part,
    dir: &Path,
    total: Option<u64>,
    report: &Report,
    download: impl Future<Output = T>,
) -> T {
    let mut download = std::pin::pin!(download);
    let mut tick = tokio::time::interval(INTERVAL);
    let mut last = 0;
    loop {
        tokio::select! {
            result = &mut download => return result,
            _ = tick.tick() => {
                let done = size_of(dir.to_owned());
                if done > last {
                    last = done;
                    report(Event::Progress { part, done: total.map_or(done, |total| done.min(total)), total });
                }
            }
        }
    }
}

/// Returns the bytes in all files under a directory. Files that vanish meanwhile count as 0.
fn size_of(dir: PathBuf) -> u64 {
    let mut sum = 0;
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => sum += meta.len(),
                Err(_) => {}
            }
        }
    }
    sum
}
