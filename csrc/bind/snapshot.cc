// Takes and compares snapshots of TensorLists. They tell whether the plan of an earlier call serves these tensors.
#include "tensor_type.h"
#include "tensors.h"

namespace nos::bind {
namespace {

uint64_t kind_of(const TensorRef& t) {
  return static_cast<uint64_t>(t.dtype) | static_cast<uint64_t>(t.present) << 8 |
         static_cast<uint64_t>(t.device.kind) << 16 | static_cast<uint64_t>(t.device.number) << 32;
}

bool same_dims(const TensorRef& t, const int64_t* dims) {
  for (int32_t d = 0; d < t.ndim; ++d)
    if (t.shape[d] != dims[d] || t.strides[d] != dims[t.ndim + d]) return false;
  return true;
}

}  // namespace

Likeness TensorLists::read_like(const Snapshot& known) {
  if (known.counts.size() != count_ || known.tensors.size() != objects_.size()) return Likeness::different;
  for (size_t l = 0; l < count_; ++l)
    if (lists_[l].tensors.size() != known.counts[l]) return Likeness::different;
  array_strides_.clear();
  bool moved = false;
  const int64_t* dims = known.dims.data();
  size_t number = 0;
  for (size_t l = 0; l < count_; ++l)
    for (size_t i = 0; i < lists_[l].tensors.size(); ++i, ++number) {
      TensorRef& out = lists_[l].tensors[i];
      const Snapshot::Tensor& k = known.tensors[number];
      const TensorType* type = k.facts.known ? tensor_type(Py_TYPE(objects_[number])) : nullptr;
      const void* data = nullptr;
      auto seen = TorchTensor::Seen::other;
      if (type && type->direct) seen = type->direct->compare(objects_[number], k.facts, dims, &data);
      const bool emptied = seen == TorchTensor::Seen::moved && reinterpret_cast<uintptr_t>(data) < kLikelyAddress;
      if (seen == TorchTensor::Seen::other || emptied) {
        read_one(l, i, number);
        if (kind_of(out) != k.kind || out.ndim != k.facts.ndim || !same_dims(out, dims)) {
          other_ = number;
          return Likeness::different;
        }
        seen = out.data == k.facts.data ? TorchTensor::Seen::same : TorchTensor::Seen::moved;
      } else if (l == bytecode::kG) {
        out.data = const_cast<void*>(data);
        out.present = true;
      }
      if (seen == TorchTensor::Seen::moved) {
        other_ = number;
        if (l != bytecode::kG || (type && type->direct && !type->direct->lies_inside(objects_[number], k.facts)))
          return Likeness::different;
        moved = true;
      }
      dims += 2 * k.facts.ndim;
    }
  return moved ? Likeness::moved : Likeness::same;
}

Snapshot TensorLists::snapshot() const {
  Snapshot out;
  out.tensors.reserve(objects_.size());
  size_t number = 0;
  for (const TensorList& list : lists()) {
    out.counts.push_back(list.tensors.size());
    for (const TensorRef& t : list.tensors) {
      const size_t first = out.dims.size();
      out.dims.insert(out.dims.end(), t.shape, t.shape + t.ndim);
      out.dims.insert(out.dims.end(), t.strides, t.strides + t.ndim);
      PyObject* object = objects_[number++];
      const TensorType* type = t.present ? tensor_type(Py_TYPE(object)) : nullptr;
      TorchTensor::Facts facts;
      if (type && type->direct)
        facts = type->direct->facts(object, t.data, size_of(t.dtype), t.ndim, out.dims.data() + first);
      facts.data = t.data;
      facts.ndim = t.ndim;
      out.tensors.push_back({facts, kind_of(t)});
    }
  }
  return out;
}

void TensorLists::refresh(Snapshot& known) const {
  for (size_t i = 0; i < lists_[bytecode::kG].tensors.size(); ++i)
    known.tensors[known.counts[0] + i].facts.data = lists_[bytecode::kG].tensors[i].data;
}

}  // namespace nos::bind
