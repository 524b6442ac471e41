//! The tensors of a sandbox.
//!
//! Owns the only copies there are between a guest and an engine: of bytes in the guest's
//! memory to where the engine takes them, and of what the guest asks to see.

use crate::call::{Holder, HostCall};
use crate::nn::tensor::{ElementType, Tensor, TensorError, Unread};
use crate::sandbox::nn_bindings::tensor::TensorType;
use crate::sandbox::{Charge, State, Stop};
use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmList};

/// wasi-nn's interface.
const INTERFACE: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";

/// A tensor handle. The constructor cannot fail, so a malformed tensor is kept
/// as what is wrong with it.
#[derive(Debug)]
pub struct GuestTensor {
    pub(super) tensor: Result<Tensor, TensorError>,
    pub(super) charge: Charge,
}

type Handle = Resource<GuestTensor>;

/// Links the interface. Generated bindings would copy each tensor once more, into a list
/// of the host's.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut tensor = linker.instance(INTERFACE)?;
    tensor.resource("tensor", ResourceType::host::<GuestTensor>(), |mut store, handle| {
        store.data_mut().table.delete(Handle::new_own(handle)).map_err(Stop::from)?;
        Ok(())
    })?;
    tensor.func_wrap("[constructor]tensor", |store, (shape, element, data)| {
        Ok((made(store, shape, element, &data)?,))
    })?;
    tensor.func_wrap("[method]tensor.dimensions", |store, (handle,): (Handle,)| {
        Ok((shape(tensor_of(&store, &handle)?),))
    })?;
    tensor.func_wrap("[method]tensor.ty", |store, (handle,): (Handle,)| {
        Ok((element(tensor_of(&store, &handle)?),))
    })?;
    tensor.func_wrap("[method]tensor.data", |store, (handle,): (Handle,)| {
        // A malformed tensor has no data that anything could be made of.
        let data = tensor_of(&store, &handle)?.as_ref();
        let data = data.map_or_else(|_| Ok(Bytes::new()), Tensor::read);
        Ok((data.map_err(|Unread(why)| Stop::DeviceLost(why))?,))
    })?;
    Ok(())
}

fn made(
    mut store: StoreContextMut<'_, State>,
    shape: Vec<u32>,
    element: TensorType,
    data: &WasmList<u8>,
) -> wasmtime::Result<Handle> {
    let state = store.data_mut();
    state.note(HostCall::Tensor);
    let (account, engine) = (state.nn.account.clone(), state.nn.graphs.engine().clone());
    let bytes_max = state.shared.limits.tensor_bytes_max;
    let (element, bytes) = (element.into(), data.len());
    let charge = |bytes| account.charge(Holder::Tensor, bytes).map_err(Stop::from);
    let made = match Tensor::shape_within(bytes_max, element, shape, bytes) {
        Ok(shape) => {
            let charge = charge(bytes as u64)?;
            let elements = engine.elements(element, &shape, data.as_le_slice(&store));
            GuestTensor { tensor: Tensor::of(element, shape, elements), charge }
        }
        Err(error) => GuestTensor { tensor: Err(error), charge: charge(0)? },
    };
    Ok(store.data_mut().table.push(made).map_err(Stop::from)?)
}

fn tensor_of<'a>(
    store: &'a StoreContextMut<'_, State>,
    handle: &Handle,
) -> Result<&'a Result<Tensor, TensorError>, Stop> {
    Ok(&store.data().table.get(handle)?.tensor)
}

fn shape(tensor: &Result<Tensor, TensorError>) -> Vec<u32> {
    match tensor {
        Ok(tensor) => tensor.shape().to_vec(),
        Err(TensorError::Length { shape, .. } | TensorError::TooLarge { shape, .. }) => {
            shape.clone()
        }
        Err(TensorError::TooManyAxes { .. } | TensorError::OverLimit { .. }) => Vec::new(),
    }
}

fn element(tensor: &Result<Tensor, TensorError>) -> TensorType {
    match tensor {
        Ok(tensor) => tensor.element().into(),
        Err(TensorError::Length { element, .. } | TensorError::TooLarge { element, .. }) => {
            (*element).into()
        }
        Err(TensorError::TooManyAxes { .. } | TensorError::OverLimit { .. }) => TensorType::U8,
    }
}

impl From<TensorType> for ElementType {
    fn from(element: TensorType) -> Self {
        match element {
            TensorType::Fp16 => Self::F16,
            TensorType::Fp32 => Self::F32,
            TensorType::Fp64 => Self::F64,
            TensorType::Bf16 => Self::Bf16,
            TensorType::U8 => Self::U8,
            TensorType::I32 => Self::I32,
            TensorType::I64 => Self::I64,
        }
    }
}

impl From<ElementType> for TensorType {
    fn from(element: ElementType) -> Self {
        match element {
            ElementType::F16 => Self::Fp16,
            ElementType::F32 => Self::Fp32,
            ElementType::F64 => Self::Fp64,
            ElementType::Bf16 => Self::Bf16,
            ElementType::U8 => Self::U8,
            ElementType::I32 => Self::I32,
            ElementType::I64 => Self::I64,
        }
    }
}
