// Snapshots of TensorLists: whether the plan of an earlier call serves the tensors of this one.
#include "tensors.h"

namespace nos::bind {
namespace {

uint64_t kind_of(const TensorRef& t) {
  return static_cast<uint64_t>(t.dtype) | static_cast<uint64_t>(t.on_cuda) << 8 |
         static_cast<uint64_t>(t.present) << 9 | static_cast<uint64_t>(t.device) << 16 |
         static_cast<uint64_t>(t.ndim) << 32;
}

}  // namespace

Likeness TensorLists::compare(const Snapshot& known) const {
  if (known.counts.size() != count_ || known.tensors.size() != objects_.size()) return Likeness::different;
  bool moved = false;
  const Snapshot::Tensor* k = known.tensors.data();
  const int64_t* dims = known.dims.data();
  for (size_t l = 0; l < count_; ++l) {
    if (lists_[l].tensors.size() != known.counts[l]) return Likeness::different;
    for (const TensorRef& t : lists_[l].tensors) {
      if (kind_of(t) != k->kind) return Likeness::different;
      if (t.data != k->data) {
        if (l != bytecode::kG) return Likeness::different;
        moved = true;
      }
      for (int32_t d = 0; d < t.ndim; ++d)
        if (t.shape[d] != dims[d] || t.strides[d] != dims[t.ndim + d]) return Likeness::different;
      dims += 2 * t.ndim;
      ++k;
    }
  }
  return moved ? Likeness::moved : Likeness::same;
}

Snapshot TensorLists::snapshot() const {
  Snapshot out;
  out.tensors.reserve(objects_.size());
  for (const TensorList& list : lists()) {
    out.counts.push_back(list.tensors.size());
    for (const TensorRef& t : list.tensors) {
      out.tensors.push_back({t.data, kind_of(t)});
      out.dims.insert(out.dims.end(), t.shape, t.shape + t.ndim);
      out.dims.insert(out.dims.end(), t.strides, t.strides + t.ndim);
    }
  }
  return out;
}

void TensorLists::refresh(Snapshot& known) const {
  for (size_t i = 0; i < lists_[bytecode::kG].tensors.size(); ++i)
    known.tensors[known.counts[0] + i].data = lists_[bytecode::kG].tensors[i].data;
}

}  // namespace nos::bind
