//! Graphs by name, and running them.

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;

use crate::error::Error;
use crate::host;
use crate::tensor::Tensor;

/// A graph of the package, by name. Nothing is open behind it: it can be kept
/// in a model or in a constant, and whether the graph exists shows at its use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Graph {
    name: Cow<'static, str>,
}

/// The graph of this name: the path of its `.onnx` file below `1/` without
/// the extension, unless `config.yaml` renames it.
///
/// ```
/// use ringfence_guest::{Graph, graph};
///
/// const DIGITS: Graph = graph("digits");
/// ```
pub const fn graph(name: &'static str) -> Graph {
    Graph { name: Cow::Borrowed(name) }
}

impl From<String> for Graph {
    /// A graph whose name is known only when the model runs.
    fn from(name: String) -> Self {
        Self { name: Cow::Owned(name) }
    }
}

impl Graph {
    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens the graph, computes once and closes it; see
    /// [`OpenGraph::compute`].
    pub fn compute<T: Borrow<Tensor>>(&self, inputs: &[(&str, T)]) -> Result<Tensors, Error> {
        self.open(|open| open.compute(inputs))
    }

    /// Opens the graph for as long as `work` runs: for models that compute
    /// many times in one call. An error names the graph.
    ///
    /// ```no_run
    /// # use ringfence_guest::{Error, Tensor, graph};
    /// # fn run(mut state: Tensor) -> Result<Tensor, Error> {
    /// graph("step").open(|step| {
    ///     for _ in 0..16 {
    ///         state = step.compute(&[("state", &state)])?.take("next")?;
    ///     }
    ///     Ok(state)
    /// })
    /// # }
    /// ```
    ///
    /// What is open cannot leave the closure, so no model can keep it:
    ///
    /// ```compile_fail
    /// # use ringfence_guest::{Error, graph};
    /// # fn escape() -> Result<(), Error> {
    /// let open = graph("step").open(|step| Ok(step))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0277
    /// # use ringfence_guest::{Error, Input, Model, OpenGraph, Output, Params};
    /// struct Keeps(Option<OpenGraph<'static>>);
    ///
    /// impl Model for Keeps {
    /// #   fn load() -> Result<Self, Error> { Ok(Keeps(None)) }
    /// #   fn predict(&self, _: Input, _: &Params) -> Result<Output, Error> { Ok("".into()) }
    /// }
    /// ```
    pub fn open<R>(
        &self,
        work: impl FnOnce(&OpenGraph<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let session = host::open(&self.name).map_err(|error| self.named(error))?;
        work(&OpenGraph { graph: self, session, not_send: PhantomData })
    }

    fn named(&self, error: Error) -> Error {
        error.context(format_args!("graph `{}`", self.name))
    }
}

/// A graph that is open; see [`Graph::open`].
pub struct OpenGraph<'call> {
    graph: &'call Graph,
    session: host::Session,
    /// A handle of the host must not end up in a model, which is `Send`.
    not_send: PhantomData<*const ()>,
}

impl OpenGraph<'_> {
    /// Runs the graph on one tensor for every input, named as the graph names
    /// it, in any order. Returns one for every output, in the graph's order.
    ///
    /// An error has code `failed`: which tensors a graph gets is the model's
    /// business, not its caller's.
    pub fn compute<T: Borrow<Tensor>>(&self, inputs: &[(&str, T)]) -> Result<Tensors, Error> {
        let named = inputs.iter().map(|(name, tensor)| (*name, tensor.borrow()));
        host::compute(&self.session, named)
            .map(|tensors| Tensors { tensors })
            .map_err(|error| self.graph.named(error))
    }
}

/// What a graph computed: tensors by name, in the graph's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors {
    tensors: Vec<(String, Tensor)>,
}

impl Tensors {
    /// The output of this name. An error names the outputs there are.
    pub fn get(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| self.missing(name))
    }

    /// The output of this name, taken out.
    pub fn take(&mut self, name: &str) -> Result<Tensor, Error> {
        match self.tensors.iter().position(|(given, _)| given == name) {
            Some(position) => Ok(self.tensors.swap_remove(position).1),
            None => Err(self.missing(name)),
        }
    }

    /// All outputs with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    fn missing(&self, name: &str) -> Error {
        let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        Error::failed(format!("the graph has no output `{name}`; it has {}", names.join(", ")))
    }
}

impl IntoIterator for Tensors {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_output_names_those_there_are() {
        let mut tensors =
            Tensors { tensors: vec![("logits".into(), Tensor::u8(&[1], &[1]).unwrap())] };
        assert_eq!(
            tensors.get("scores").unwrap_err().message(),
            "the graph has no output `scores`; it has logits"
        );
        assert!(tensors.take("logits").is_ok());
        assert!(tensors.take("logits").is_err());
    }

    #[test]
    fn a_graph_outside_the_sandbox_answers_unsupported() {
        let error = graph("digits").compute::<Tensor>(&[]).unwrap_err();
        assert_eq!(error.code(), crate::ErrorCode::Unsupported);
        assert!(error.message().starts_with("graph `digits`: "));
    }
}
