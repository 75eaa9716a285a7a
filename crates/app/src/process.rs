//! What this process is allowed, set before anything else.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Makes new files and directories private, and allows as many open files as the system does: connections are files, and a
/// limit of 1,024, which is usual, is soon reached. The servers of the local stack inherit both.
pub(crate) fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it there are fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
