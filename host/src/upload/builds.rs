//! What uploaders are told of their builds: bounded, in memory, newest kept.

use crate::limits::limit;
use crate::package::config::ModelName;
use std::collections::VecDeque;

/// Builds that are remembered: those of one user do not push out what another is
/// told.
const BUILDS_OF_USER_MAX: usize = 64;
/// Of all users; more than that only where so many go on at a time.
const BUILDS_MAX: usize = 512;
/// Lines of one.
const LINES_MAX: usize = 300;
/// Bytes of a line.
const LINE_BYTES_MAX: usize = 4 << 10;

/// How a build goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildState {
    /// It is not done.
    Building,
    /// The version is stored.
    Built,
    /// It was refused; the text says why.
    Failed(String),
}

/// What was told, and which one it is in its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 0.
    pub number: usize,
    /// For the uploader.
    pub text: String,
}

#[derive(Debug)]
struct Build {
    name: ModelName,
    version: String,
    state: BuildState,
    lines: Vec<String>,
}

/// The newest builds.
#[derive(Debug, Default)]
pub(super) struct Builds(VecDeque<Build>);

impl Builds {
    /// Begins one, or begins it again.
    pub(super) fn begin(&mut self, name: &ModelName, version: &str) {
        self.0.retain(|build| build.name != *name || build.version != version);
        let is_own = |build: &Build| build.name.user_id() == name.user_id();
        let own_max = limit("builds_remembered_of_user", BUILDS_OF_USER_MAX);
        if self.0.iter().filter(|build| is_own(build)).count() >= own_max {
            self.forget_oldest(is_own);
        }
        if self.0.len() >= limit("builds_remembered", BUILDS_MAX) {
            self.forget_oldest(|_| true);
        }
        self.0.push_back(Build {
            name: name.clone(),
            version: version.to_owned(),
            state: BuildState::Building,
            lines: Vec::new(),
        });
    }

    /// Of those that have ended.
    fn forget_oldest(&mut self, may_go: impl Fn(&Build) -> bool) {
        let has_ended = |build: &Build| build.state != BuildState::Building;
        let oldest = self.0.iter().position(|build| has_ended(build) && may_go(build));
        oldest.map(|index| self.0.remove(index));
    }

    /// Tells its uploader something; each line of the text is one.
    pub(super) fn tell(&mut self, name: &ModelName, version: &str, text: &str) {
        let Some(build) = self.find_mut(name, version) else { return };
        for line in text.lines() {
            if build.lines.len() >= limit("build_lines", LINES_MAX) {
                return;
            }
            let mut line = line.to_owned();
            crate::text::cut(&mut line, limit("build_line", LINE_BYTES_MAX));
            build.lines.push(line);
        }
    }

    pub(super) fn end(&mut self, name: &ModelName, version: &str, state: BuildState) {
        if let Some(build) = self.find_mut(name, version) {
            build.state = state;
        }
    }

    pub(super) fn state(&self, name: &ModelName, version: &str) -> Option<BuildState> {
        self.find(name, version).map(|build| build.state.clone())
    }

    pub(super) fn lines(&self, name: &ModelName, version: &str) -> Vec<Line> {
        let lines = self.find(name, version).map(|build| build.lines.as_slice());
        let numbered = lines.unwrap_or_default().iter().enumerate();
        numbered.map(|(number, text)| Line { number, text: text.clone() }).collect()
    }

    fn find(&self, name: &ModelName, version: &str) -> Option<&Build> {
        self.0.iter().find(|build| build.name == *name && build.version == version)
    }

    fn find_mut(&mut self, name: &ModelName, version: &str) -> Option<&mut Build> {
        self.0.iter_mut().find(|build| build.name == *name && build.version == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_no_user_pushes_out_anothers() {
        let of = |user: usize| ModelName::new(&format!("user{user}"), "b", "c").unwrap();
        let mut builds = Builds::default();
        for user in 0..=BUILDS_MAX / BUILDS_OF_USER_MAX {
            for number in 0..=BUILDS_OF_USER_MAX {
                builds.begin(&of(user), &number.to_string());
                if (user, number) != (0, 1) {
                    builds.end(&of(user), &number.to_string(), BuildState::Built);
                }
            }
        }
        assert_eq!(builds.0.len(), BUILDS_MAX);
        let own = builds.0.iter().filter(|build| build.name == of(2)).count();
        assert_eq!(own, BUILDS_OF_USER_MAX);
        assert_eq!(builds.state(&of(1), "0"), None);
        assert_eq!(builds.state(&of(0), "1"), Some(BuildState::Building), "it goes on");

        let name = of(8);
        builds.tell(&name, "1", &"line\n".repeat(2 * LINES_MAX));
        builds.tell(&name, "2", &"x".repeat(2 * LINE_BYTES_MAX));
        assert_eq!(builds.lines(&name, "1").len(), LINES_MAX);
        assert_eq!(builds.lines(&name, "2")[0].text.len(), LINE_BYTES_MAX);
        builds.begin(&name, "1");
        assert_eq!(builds.state(&name, "1"), Some(BuildState::Building));
        builds.end(&name, "1", BuildState::Built);
        assert_eq!(builds.state(&name, "1"), Some(BuildState::Built));
    }
}
