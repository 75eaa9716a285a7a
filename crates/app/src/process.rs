//! Process limits, set at startup.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Makes new files and directories private, and raises the limit of open files to the hard limit: connections are files, and
/// the usual soft limit of 1,024 is soon reached. The servers of the local stack inherit both.
pub(crate) fn prepare() {
    umask(Mode::RWXG | Mode::RWXO);
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // On failure the process can only open fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
