//! The state that `load-model` leaves, written into the component itself.
//!
//! Owns which components can be written so and what may not be left behind: a sandbox
//! that starts from the copy has nothing open that the one before had, and must not know
//! the time or the random numbers that the one before was told.

use super::bindings::ModelRunner;
use super::instance::{Instance, fresh};
use super::program::Shared;
use super::ready::load_deadline;
use super::state::State;
use crate::limits::limit;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::sync::Arc;
use wasmparser::{CanonicalFunction, Parser, Payload};
use wasmtime::component::{Instance as ComponentInstance, Lift, WasmList};
use wasmtime::{AsContext, Store};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// Bytes of what a replica's sandboxes are copies of, which it holds once beside all that
/// its account sees, as it holds machine code; and of the component with that in it.
pub const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;

/// What sandboxes start from that are copies of one whose `load-model` has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The typed methods, as the guest has declared them before `load-model`.
    pub methods: String,
    /// Bytes of what its memories begin with, which all sandboxes share.
    pub bytes: u64,
}

/// Why sandboxes of a component cannot be copies of one. The author reads this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is made in a way that cannot be written with its state.
    #[error("its component cannot be written with its state: {0}")]
    Form(String),
    /// `load-model` has not succeeded.
    #[error("load-model fails: {0}")]
    Load(String),
    /// Something is open that would not be in a copy.
    #[error(
        "load-model leaves {0} open, such as a file or a stream; close it, or open it in the call"
    )]
    Handles(String),
    /// It was told the time, which a copy would take for the present.
    #[error("load-model reads the clock; read it in the call")]
    Clock,
    /// It was told random numbers, which would be the same in each copy.
    #[error("load-model draws random numbers, which would be the same in each call")]
    Random,
    /// It leaves too much.
    #[error(
        "load-model leaves {bytes} bytes, over the {SNAPSHOT_BYTES_MAX} that a snapshot may have"
    )]
    TooLarge {
        /// Bytes of the component with its state in it.
        bytes: u64,
    },
}

/// A component with the state in it that `load-model` has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The component.
    pub component: Vec<u8>,
    /// Bytes of its memories.
    pub bytes: u64,
}

/// The same component, which can be asked for its state from outside.
pub(super) fn asked(component: &[u8]) -> Result<Vec<u8>, Unfit> {
    prepared(component).map(|(_, asked)| asked)
}

/// Whether a component is made in a way that can be written with its state. What its
/// `load-model` does decides the rest.
pub fn form(component: &[u8]) -> Result<(), Unfit> {
    prepared(component).map(drop)
}

fn prepared(component: &[u8]) -> Result<(wasmtime_wizer::ComponentContext<'_>, Vec<u8>), Unfit> {
    let form = |error: &dyn std::fmt::Display| Unfit::Form(error.to_string());
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::ComponentCanonicalSection(section) = payload.map_err(|e| form(&e))? {
            for function in section {
                // Its own handles are in no memory.
                if let CanonicalFunction::ResourceNew { .. } = function.map_err(|e| form(&e))? {
                    return Err(Unfit::Form("it has resources of its own".to_owned()));
                }
            }
        }
    }
    Wizer::new().instrument_component(component).map_err(|error| Unfit::Form(format!("{error:#}")))
}

impl Instance {
    /// Runs `load-model` in a sandbox of its own, whose code is that of [`asked`], and
    /// writes what it leaves into the component.
    pub(super) async fn snapshot(
        shared: &Arc<Shared>,
        component: &[u8],
    ) -> Result<Snapshot, Unfit> {
        let (context, _) = prepared(component)?;
        let surroundings = shared.surroundings.watched();
        let ended = |error: &dyn std::fmt::Display| Unfit::Load(error.to_string());
        let made = shared.share.charged(|| fresh(shared, load_deadline(shared), surroundings));
        let mut held = made.map_err(|verdict| ended(&verdict.end))?;
        let store = held.store();
        let meters = store.data().meters.clone();
        let working = async {
            let pre = shared.pre.instance_pre();
            let instance = pre.instantiate_async(&mut *store).await?;
            let runner = ModelRunner::new(&mut *store, &instance)?;
            let loaded = runner.ringfence_model_runner().call_load_model(&mut *store).await?;
            Ok::<_, wasmtime::Error>((instance, loaded))
        };
        let (instance, loaded) = match shared.share.run(&meters, working).await {
            Ok(loaded) => loaded,
            Err(error) => {
                return Err(ended(&super::stop::end_of(&error, store, &shared.limits)));
            }
        };
        loaded.map_err(|error| ended(&error.message))?;
        store.data_mut().is_whole_in_memory()?;
        let bytes = store.data().limiter.memory_bytes();
        over(bytes)?;
        // From here on nothing of the guest's runs.
        store.data_mut().limiter.lift();
        store.set_hostcall_fuel(usize::MAX);
        store.set_fuel(u64::MAX).map_err(|error| Unfit::Form(format!("{error:#}")))?;
        let mut asking = Asking { store, instance, failed: None };
        let writing = Wizer::new();
        let writing = writing.snapshot_component(&context, &mut asking);
        let written = shared.share.run(&meters, writing).await;
        if let Some(error) = asking.failed {
            return Err(Unfit::Form(error));
        }
        let component = written.map_err(|error| Unfit::Form(format!("{error:#}")))?;
        over(component.len() as u64)?;
        Ok(Snapshot { component, bytes })
    }
}

fn over(bytes: u64) -> Result<(), Unfit> {
    match bytes <= limit("snapshot_bytes", SNAPSHOT_BYTES_MAX) {
        true => Ok(()),
        false => Err(Unfit::TooLarge { bytes }),
    }
}

/// An instance that is asked for its state. What fails is told in the end.
struct Asking<'a> {
    store: &'a mut Store<State>,
    instance: ComponentInstance,
    failed: Option<String>,
}

impl Asking<'_> {
    async fn ask<R: Lift + Send + Sync + 'static, T: Default>(
        &mut self,
        instance: &str,
        function: &str,
        take: impl FnOnce(&Store<State>, R) -> T,
    ) -> T {
        match self.call(instance, function).await {
            Ok(answer) => take(self.store, answer),
            Err(error) => {
                self.failed.get_or_insert(format!("{error:#}"));
                T::default()
            }
        }
    }

    async fn call<R: Lift + Send + Sync + 'static>(
        &mut self,
        instance: &str,
        function: &str,
    ) -> wasmtime::Result<R> {
        let missing = || wasmtime::Error::msg(format!("{instance} {function} is not there"));
        let (store, from) = (&mut *self.store, &self.instance);
        let (_, outer) = from.get_export(&mut *store, None, instance).ok_or_else(missing)?;
        let (_, inner) =
            from.get_export(&mut *store, Some(&outer), function).ok_or_else(missing)?;
        let function = from.get_typed_func::<(), (R,)>(&mut *store, inner)?;
        Ok(function.call_async(&mut *store, ()).await?.0)
    }
}

impl ComponentInstanceState for Asking<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        function: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        // Whoever writes takes it for granted that it is called.
        match self.call::<WasmList<u8>>(instance, function).await {
            Ok(list) => contents(list.as_le_slice(self.store.as_context())),
            Err(error) => {
                self.failed.get_or_insert(format!("{error:#}"));
                contents(&[]);
            }
        }
    }

    fn call_func_ret_s32(
        &mut self,
        instance: &str,
        function: &str,
    ) -> impl Future<Output = i32> + Send {
        self.ask(instance, function, |_, value: i32| value)
    }

    fn call_func_ret_s64(
        &mut self,
        instance: &str,
        function: &str,
    ) -> impl Future<Output = i64> + Send {
        self.ask(instance, function, |_, value: i64| value)
    }

    fn call_func_ret_f32(
        &mut self,
        instance: &str,
        function: &str,
    ) -> impl Future<Output = u32> + Send {
        self.ask(instance, function, |_, value: f32| value.to_bits())
    }

    fn call_func_ret_f64(
        &mut self,
        instance: &str,
        function: &str,
    ) -> impl Future<Output = u64> + Send {
        self.ask(instance, function, |_, value: f64| value.to_bits())
    }
}
