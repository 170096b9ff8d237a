"""A CUDA device simulated on the CPU, for what can go wrong between kernels.

Tensors of class `Simulated` say that they lie on `cuda:0` and hold a CPU tensor. While
`SimulatedCuda` is on, every operation of torch on them is carried out on what they hold, and what
a real device would refuse is refused: tensors of two devices in one operation, and, while a graph
is captured, anything that waits for the device. A captured graph can be replayed: its operations
are carried out again on the same memory, and Python is not asked.

Kernels are those of the CPU, or Triton's own in its interpreter where TRITON_INTERPRET is set. It
changes functions of torch for good, so it is meant for a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_ON_CUDA = {}
"""Name of an operation to what is registered for CUDA devices."""
_impl = torch.library.Library.impl


def _remember(self, name, function, key="", **options):
    if key == "CUDA":
        _ON_CUDA[name] = function
    _impl(self, name, function, key, **options)


torch.library.Library.impl = _remember

from layercast.kernels import cpu  # noqa: E402
from layercast.ops import backends  # noqa: E402

CUDA = torch.device("cuda", 0)
_READS = {
    "_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "unique_consecutive", "equal",
    "masked_select", "is_nonzero", "item",
}  # fmt: skip
_AT = {"index", "index_put", "index_put_", "_index_put_impl_"}
_ACROSS = {"copy_", "_to_copy", *_AT}


class WaitError(AssertionError):
    """What a CUDA device refuses while a graph is captured."""


class Simulated(torch.Tensor):
    """A tensor on the simulated device."""

    @staticmethod
    def __new__(cls, inner):
        """Stand for `inner`."""
        with torch.inference_mode(False):  # views of it need not be made in that mode, too
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device="cpu",  # what C++ sees: it has no guard for a device that is not there
            )
        tensor.inner = inner
        return tensor

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Refuse what happens while the device is off."""
        raise RuntimeError(f"{func} on a simulated tensor outside of SimulatedCuda")

    def data_ptr(self):
        """Of the memory that stands for the device's."""
        return self.inner.data_ptr()


def place(model):
    """Put a model's weights on the device, in place."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                copy = Simulated(parameter.detach().clone())
                module._parameters[name] = torch.nn.Parameter(copy, requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Simulated(buffer.detach().clone())
    return model


def held(x):
    """What a simulated tensor holds; anything else as it is."""
    return x.inner if isinstance(x, Simulated) else x


def on_device(x):
    """A simulated tensor that holds `x`; anything else as it is."""
    return Simulated(x) if isinstance(x, torch.Tensor) and not isinstance(x, Simulated) else x


class Graph:
    """What was done between two points, and the memory it was done on."""

    def __init__(self):
        self.steps = []
        self._before = {}

    def record(self, call, made, fresh):
        """Keep an operation: what it made anew is to be written again."""
        self.steps.append((call, made, fresh))

    def save(self, x):
        """Remember what a tensor holds before it is written for the first time."""
        storage = x.untyped_storage()
        self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def undo(self):
        """As on a device, where capturing computes nothing."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def replay(self):
        """Do all of it again, with results in the memory of the first time."""
        for call, made, fresh in self.steps:
            again = [t for t in tree_leaves(call()) if _is(t)]
            for old, new, is_fresh in zip(made, again, fresh, strict=True):
                if is_fresh:
                    old.copy_(new)


def _is(x):
    return isinstance(x, torch.Tensor)


class _Names(TorchFunctionMode):
    """Calls that torch carries out for a CUDA device before any dispatch mode is asked."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("tensor", "as_tensor", "new_tensor") and _names_cuda(kwargs.get("device")):
            kwargs.pop("device")
            self.device.wait(f"torch.{name}(..., device='cuda')")
            return on_device(held(func(*args, **kwargs)))
        if name == "cuda":
            return self.device.move(args[0])
        if name == "to" and any(map(_names_cuda, (*args[1:], kwargs.get("device")))):
            rest = [a for a in args[1:] if not _names_cuda(a)]
            kwargs.pop("device", None)
            moved = self.device.move(args[0])
            return moved.to(*rest, **kwargs) if rest or kwargs else moved
        fetches = name == "cpu" or (
            name == "to" and any(map(_names_cpu, (*args[1:], kwargs.get("device"))))
        )
        if fetches and isinstance(args[0], Simulated):
            rest = [a for a in args[1:] if not _names_cpu(a)]
            kwargs.pop("device", None)
            fetched = self.device.fetch(args[0])
            return fetched.to(*rest, **kwargs) if rest or kwargs else fetched
        if name == "tolist" and isinstance(args[0], Simulated):
            return self.device.fetch(args[0]).tolist()
        if name == "__deepcopy__" and isinstance(args[0], Simulated):
            return Simulated(args[0].inner.clone())
        if name == "is_pinned":
            return False
        if name == "pin_memory":
            return args[0]
        args = [CUDA if _names_cuda(a) else a for a in args]
        if _names_cuda(kwargs.get("device")):
            kwargs["device"] = CUDA
        return func(*args, **kwargs)


def _names_cpu(x):
    return isinstance(x, str | torch.device) and str(x).startswith("cpu")


def _names_cuda(x):
    return isinstance(x, str | torch.device) and str(x).startswith("cuda")


class SimulatedCuda(TorchDispatchMode):
    """The device; see the head of this file.

    Attributes:
        waits: The files of layercast, or else of transformers, that waited for the device so far.
    """

    def __init__(self):
        super().__init__()
        self.waits = []
        self.graph = None
        self._names = _Names(self)
        self._pretend()

    def __enter__(self):
        self._names.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._names.__exit__(*exception)

    def _pretend(self):
        torch.cuda._lazy_init = lambda: None
        torch.cuda.is_available = lambda: True
        torch.cuda.is_current_stream_capturing = lambda: self.graph is not None
        torch.cuda.get_device_capability = lambda device=None: (9, 0)
        torch.cuda.get_device_properties = lambda device=None: SimpleNamespace(
            multi_processor_count=4
        )
        torch.cuda.synchronize = lambda device=None: self.wait("torch.cuda.synchronize")
        torch.cuda.device = _Device
        torch.cuda.Stream = _Stream
        torch.cuda.stream = lambda stream: contextlib.nullcontext()
        torch.cuda.empty_cache = lambda: None
        torch.cuda.set_device = lambda device: None
        torch.cuda.mem_get_info = lambda device=None: (2**33, 2**34)
        torch.cuda.memory_reserved = torch.cuda.memory_allocated = lambda device=None: 0
        torch.cuda.current_device = lambda: 0
        if os.environ.get("TRITON_INTERPRET") == "1":
            _interpret_launches(self)
        else:
            kernels = _CpuKernels(self)
            backends.triton_kernels = lambda: kernels
            sys.modules["layercast.ops.rotary"].triton_kernels = backends.triton_kernels

    def move(self, x):
        """`x` on the device: a copy from pageable memory, which the host waits for."""
        if isinstance(x, Simulated):
            return x
        self.wait("copy to the device")
        return Simulated(x.detach().clone())

    def fetch(self, x):
        """A copy of `x` on the CPU."""
        self.wait("copy from the device")
        return x.inner.clone()

    def wait(self, what):
        """Note that the host waits for the device, or refuse it."""
        if self.graph is not None:
            raise WaitError(f"{what} while a graph is captured")
        self.waits.append(_caller())

    @contextlib.contextmanager
    def capture(self):
        """Record a graph; the operations are carried out once, too."""
        self.graph = Graph()
        try:
            yield self.graph
            self.graph.undo()
        finally:
            self.graph = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Carry an operation out."""
        kwargs = dict(kwargs or {})
        name = func._schema.name.partition("::")[2]
        tensors = [t for t in tree_leaves((args, kwargs)) if _is(t)]
        mine = [t for t in tensors if isinstance(t, Simulated)]
        target = kwargs.get("device")
        if not mine and not _names_cuda(target):
            return func(*args, **kwargs)
        if func.namespace == "layercast":
            with self:
                return _ON_CUDA[name](*args, **kwargs)
        self._check(func, name, args, kwargs, tensors, mine)
        plain_args, plain_kwargs = tree_map(held, (tuple(args), kwargs))
        if name == "_to_copy" and mine and target is not None and not _names_cuda(target):
            return func(*plain_args, **plain_kwargs).clone()
        if _names_cuda(target):
            plain_kwargs["device"] = torch.device("cpu")
        if name == "copy_" and not isinstance(args[0], Simulated):
            return func(*plain_args, **plain_kwargs)
        if self.graph is not None and func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, plain_args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self.graph.save(value)
        return self.carry_out(func, plain_args, plain_kwargs, mine)

    def carry_out(self, call, args, kwargs, mine=()):
        """Call on what is held, note it in the graph, and wrap the results."""
        results = call(*args, **kwargs)
        made = [t for t in tree_leaves(results) if _is(t)]
        if self.graph is not None:
            before = {_storage(t) for t in tree_leaves((args, kwargs)) if _is(t)}
            fresh = [_storage(t) not in before for t in made]
            mutable = not hasattr(call, "_schema") or call._schema.is_mutable
            if mutable or any(fresh):
                self.graph.record(lambda: call(*args, **kwargs), made, fresh)
        known = {id(t.inner): t for t in mine}
        return tree_map(lambda t: known.get(id(t), on_device(t)) if _is(t) else t, results)

    def _check(self, func, name, args, kwargs, tensors, mine):
        others = [t for t in tensors if not isinstance(t, Simulated) and t.dim() > 0]
        if mine and others and name not in _ACROSS:
            raise RuntimeError(f"{func}: expected all tensors on one device, got cuda:0 and cpu")
        crosses = name == "copy_" and len({t.device.type for t in tensors}) > 1
        target = kwargs.get("device")
        if name == "_to_copy" and target is not None:
            crosses = _names_cuda(target) != bool(mine)
        masked = name in _AT and any(
            _is(t) and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        indexed = name in _AT and any(_is(t) and not isinstance(t, Simulated) for t in args[1])
        repeated = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in _READS or crosses or masked or indexed or repeated:
            self.wait(str(func))


def _caller():
    frame, outermost, package = sys._getframe(1), "test", Path(backends.__file__).parents[1]
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if package in path.parents:
            return path.name
        if "transformers" in path.parts and outermost == "test":
            outermost = f"transformers/{path.name}"
        frame = frame.f_back
    return outermost


class _Stream:
    """Stands for `torch.cuda.Stream`: everything is done at once."""

    def __init__(self, *args, **kwargs):
        pass

    def synchronize(self):
        """Wait for nothing."""


class _Device(contextlib.nullcontext):
    """Stands for `torch.cuda.device`."""


def _storage(x):
    return x.untyped_storage().data_ptr()


class _CpuKernels:
    """Stands for the Triton backend: the functions of the CPU's on what tensors hold."""

    def __init__(self, device):
        self._device = device

    def frequencies(self, base, head_dim, device):
        """See `layercast.kernels.triton.frequencies`."""
        return on_device(cpu.frequencies(base, head_dim))

    def embedding(self, ids, weight):
        """See `layercast.kernels.triton.embedding`: NaN for ids that the table does not have."""
        outside = (ids < 0) | (ids >= weight.shape[0])
        y = self.__getattr__("embedding")(ids.masked_fill(outside, 0), weight)
        return y.masked_fill(outside[..., None], torch.nan)

    def rotary_table(self, position_ids, inv_freq, scaling):
        """See `layercast.kernels.triton.rotary_table`: NaN from 2**31 on."""
        beyond = position_ids.abs() >= 2**31
        near = position_ids.masked_fill(beyond, 0)
        tables = self.__getattr__("rotary_table")(near, inv_freq, scaling)
        return tuple(table.masked_fill(beyond[..., None], torch.nan) for table in tables)

    def __getattr__(self, name):
        kernel = getattr(cpu, name)

        def call(*args, max_queries=None):  # for launches only
            tensors = [a for a in args if _is(a)]
            assert all(isinstance(t, Simulated) for t in tensors), f"{name}: a tensor on the CPU"
            return self._device.carry_out(kernel, tree_map(held, args), {})

        call.__name__ = name
        return call


def _interpret_launches(device):
    """Make Triton's interpreter take simulated tensors, and note launches in the graph."""
    from triton.runtime import interpreter

    stock = interpreter.GridExecutor.__call__

    def launch(self, *args, **kwargs):
        args, kwargs = tree_map(held, (args, kwargs))
        device.carry_out(lambda: stock(self, *args, **kwargs), (), {})

    interpreter.GridExecutor.__call__ = launch
