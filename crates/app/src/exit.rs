//! Exit codes and failures.

use std::fmt;
use std::process;

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_ops::replay::Rejection;

/// Result of a command that ran to completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Success: exit code 0.
    Fine,
    /// Negative answer, such as a failed check: exit code 1.
    No,
    /// Incomplete answer, already reported: exit code 2.
    Unknown,
}

/// Why a command failed: exit code 2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Operation, object and cause.
    pub(crate) message: String,
    /// What to do, if known.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Creates a failure without a hint.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Sets the hint.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let usual =
            || (error.class == ErrorClass::Transient).then(|| "run `tidewheel check` to test every server".to_owned());
        Self { hint: error.hint.clone().or_else(usual), message: error.message }
    }
}

impl From<Rejection> for Failure {
    fn from(Rejection { message, hint }: Rejection) -> Self {
        Self::new(message).with_hint(hint)
    }
}

impl From<Answer> for process::ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(match answer {
            Answer::Fine => 0,
            Answer::No => 1,
            Answer::Unknown => 2,
        })
    }
}

impl From<crate::settings::SettingsError> for Failure {
    fn from(error: crate::settings::SettingsError) -> Self {
        let crate::settings::SettingsError(problems) = error;
        match problems.as_slice() {
            [problem] => Self::new(problem.to_string()).with_hint(problem.hint()),
            several => {
                let list: Vec<_> = several.iter().map(|problem| format!("\n  {problem}; {}", problem.hint())).collect();
                Self::new(format!("{} problems in the settings:{}", several.len(), list.concat()))
            }
        }
    }
}

impl From<crate::settings::Problem> for Failure {
    fn from(problem: crate::settings::Problem) -> Self {
        crate::settings::SettingsError::from(problem).into()
    }
}
