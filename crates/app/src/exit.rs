//! How the program ends.

use std::fmt;
use std::process;

use tidewheel_core::error::{ErrorClass, PortError};

/// What a command that could do its work found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All is fine: exit code 0.
    Fine,
    /// The answer is no, a check failed for example: exit code 1.
    No,
    /// Part of the answer could not be had, and that has been said already: exit code 2.
    Unknown,
}

/// Why a command could not do its work: exit code 2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What failed, on which object, caused by what.
    pub(crate) message: String,
    /// What to do, where that is known.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same failure with a hint.
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
            || (error.class == ErrorClass::Transient).then(|| "`tidewheel check` tries every server".to_owned());
        Self { hint: error.hint.clone().or_else(usual), message: error.message }
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
