#include "plan.h"

#include <algorithm>

#include "device.h"

namespace nos {
namespace {

std::string at(const TensorList& list, size_t i) { return list.name + "[" + std::to_string(i) + "]"; }

std::string text(const int64_t* v, int n) {
  std::string out = "(";
  for (int i = 0; i < n; ++i) out += (i ? ", " : "") + std::to_string(v[i]);
  return out + (n == 1 ? ",)" : ")");
}
std::string shape(const TensorRef& t) { return text(t.shape, t.ndim); }
std::string strides(const TensorRef& t) { return text(t.strides, t.ndim); }

// Whether the elements fill one stretch of memory without gaps, in whatever order of the dimensions.
bool is_dense(const TensorRef& t) {
  int64_t expected = 1;
  int d = t.ndim - 1;
  for (; d >= 0; --d) {  // row-major, the common case
    if (t.shape[d] == 1) continue;
    if (t.strides[d] != expected) break;
    expected *= t.shape[d];
  }
  if (d < 0) return true;
  std::vector<int> order;
  for (d = 0; d < t.ndim; ++d)
    if (t.shape[d] != 1) order.push_back(d);
  std::sort(order.begin(), order.end(), [&](int x, int y) { return t.strides[x] < t.strides[y]; });
  expected = 1;
  for (int k : order) {
    if (t.strides[k] != expected) return false;
    expected *= t.shape[k];
  }
  return true;
}

bool same_shape(const TensorRef& a, const TensorRef& b) {
  return a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
}

bool same_layout(const TensorRef& a, const TensorRef& b) {
  for (int d = 0; d < a.ndim; ++d)
    if (a.shape[d] != 1 && a.strides[d] != b.strides[d]) return false;
  return true;
}

// Checks that hold between a parameter and its gradient or a state. `numbers` is how many numbers a state has that is
// one number per tensor, and 0 for the others.
void check_pair(const TensorList& params, const TensorList& list, size_t i, uint32_t numbers) {
  const TensorRef &p = params.tensors[i], &t = list.tensors[i];
  if (numbers && t.numel != numbers)
    throw TensorError(at(list, i) + " has shape " + shape(t) +
                      " but is one number per tensor; pass a tensor of shape " +
                      (numbers == 1 ? "()" : "(" + std::to_string(numbers) + ",)"));
  if (!numbers && !same_shape(t, p))
    throw TensorError(at(list, i) + " has shape " + shape(t) + " but " + at(params, i) + " has " + shape(p) +
                      "; pass tensors of equal shape");
  if (t.device != p.device)
    throw TensorError(at(list, i) + " is on another device than " + at(params, i) + "; move it there first");
  // Numbers per tensor are read and written by the arithmetic in double, whatever elements are computed in.
  if ((t.dtype == DType::f64) != (p.dtype == DType::f64) && !(numbers && t.dtype == DType::f64))
    throw TensorError(at(list, i) + " is " + std::string(name_of(t.dtype)) + " but " + at(params, i) + " is " +
                      std::string(name_of(p.dtype)) +
                      "; a float64 parameter needs float64 everywhere, and the other "
                      "dtypes mix only among themselves: convert " +
                      at(list, i));
  if (p.numel == 0) return;
  if (!is_dense(t))
    throw TensorError(at(list, i) + " has gaps or repeats in memory (strides " + strides(t) + " for shape " + shape(t) +
                      "); pass a dense tensor, for example a copy");
  if (!numbers && !same_layout(t, p))
    throw TensorError(at(list, i) + " has strides " + strides(t) + " but " + at(params, i) + " has " + strides(p) +
                      "; copy it into memory of the parameter's layout, as empty_like(" + at(params, i) + ") has");
}

// The scales of a state, or null where it is not quantized.
float* scales_of(const TensorList& states, const TensorList* scales, size_t i, bool is_number, uint32_t population) {
  const TensorRef& t = states.tensors[i];
  const bool given = scales && scales->tensors[i].present;
  const std::string what = at(states, i) + " is " + std::string(name_of(t.dtype));
  if (!is_quantized(t.dtype)) {
    if (given) throw TensorError(what + ", which has no scales, but there is " + at(*scales, i) + "; pass None there");
    return nullptr;
  }
  if (is_number) throw TensorError(what + " but is one number per tensor; pass float32");
  if (population) throw TensorError(what + ", which a population cannot have; pass float32 or bfloat16");
  if (!given)
    throw TensorError(what +
                      " and has no scales; pass those that nos_ext.init_state(program, params, "
                      "state_dtype=\"int8\") makes beside it");
  const TensorRef& s = scales->tensors[i];
  const int64_t count = scale_count(t.numel);
  if (s.dtype != DType::f32 || s.ndim != 1 || s.numel != count || !is_dense(s))
    throw TensorError(at(*scales, i) + " is " + std::string(name_of(s.dtype)) + " of shape " + shape(s) + " but " +
                      at(states, i) + " has " + std::to_string(t.numel) +
                      " elements; pass a dense float32 tensor of shape (" + std::to_string(count) +
                      ",), a number for each " + std::to_string(kScaleBlock) + " of them");
  if (s.device != t.device)
    throw TensorError(at(*scales, i) + " is on another device than " + at(states, i) + "; move it there first");
  return static_cast<float*>(s.data);
}

// Every slice of a population must be dense by itself, so the leading dimension must be the outermost one in memory.
void check_slices(const TensorList& params, size_t i, uint32_t population) {
  const TensorRef& p = params.tensors[i];
  if (p.ndim == 0 || p.shape[0] != population)
    throw TensorError(at(params, i) + " has shape " + shape(p) + " but there are " + std::to_string(population) +
                      " programs; the leading dimension must have one slice for each");
  if (population > 1 && p.numel != 0 && p.strides[0] != p.numel / population)
    throw TensorError(
        at(params, i) + " has strides " + strides(p) +
        "; its slices along the leading dimension must lie one after the other: pass a contiguous tensor");
}

struct Interval {
  uintptr_t begin, end;
  bool written;
  uint32_t list, index;
};

// Two tensors may share memory only when both are read-only.
void check_aliasing(std::vector<Interval>& spans, std::span<const TensorList> lists) {
  std::sort(spans.begin(), spans.end(), [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  // The tensors that reach furthest so far: of all, and of those that are written.
  const Interval *any = nullptr, *written = nullptr;
  for (const Interval& s : spans) {
    const Interval* clash = written && s.begin < written->end        ? written
                            : s.written && any && s.begin < any->end ? any
                                                                     : nullptr;
    if (clash)
      throw TensorError(at(lists[clash->list], clash->index) + " and " + at(lists[s.list], s.index) +
                        " share memory, and one of them is written; pass each tensor once, or clone one of them");
    if (!any || s.end > any->end) any = &s;
    if (s.written && (!written || s.end > written->end)) written = &s;
  }
}

}  // namespace

Plan make_plan(std::span<const TensorList> lists, uint32_t first_index, uint32_t population, uint32_t number_slots,
               std::span<const TensorStates> states_of, size_t num_scales) {
  const TensorList &params = lists[0], &grads = lists[1];
  const size_t n = params.tensors.size();
  for (const TensorList& list : lists)
    if (list.tensors.size() != n)
      throw TensorError(list.name + " has " + std::to_string(list.tensors.size()) + " tensors but params has " +
                        std::to_string(n) + "; pass one per parameter");

  Plan plan;
  const size_t num_slots = lists.size() - num_scales;
  plan.num_slots = static_cast<int>(num_slots);
  std::vector<Interval> spans;
  spans.reserve(lists.size() * n);
  plan.tensors.reserve(n);
  const size_t first = first_present(grads);
  for (size_t i = 0; i < n; ++i) {
    if (!grads.tensors[i].present) continue;
    const TensorRef& p = params.tensors[i];
    if (p.device != params.tensors[first].device)
      throw TensorError(at(params, i) + " is on another device than " + at(params, first) +
                        "; make one call, or one optimizer, per device");
    PlannedTensor t{};
    const size_t slots =
        states_of.empty() ? num_slots : static_cast<size_t>(bytecode::kFirstState + states_of[i].count);
    const uint32_t numbers = states_of.empty() ? number_slots : states_of[i].number_slots;
    for (size_t s = 0; s < slots; ++s) {
      check_pair(params, lists[s], i, numbers >> s & 1 ? std::max(population, 1u) : 0);
      const TensorRef& ref = lists[s].tensors[i];
      t.data[s] = ref.data;
      t.dtype[s] = ref.dtype;
      if (p.numel != 0) {
        const auto begin = reinterpret_cast<uintptr_t>(ref.data);
        spans.push_back({begin, begin + static_cast<uintptr_t>(ref.numel) * static_cast<uintptr_t>(size_of(ref.dtype)),
                         s != bytecode::kG, static_cast<uint32_t>(s), static_cast<uint32_t>(i)});
      }
      if (s < bytecode::kFirstState) continue;
      const size_t state = s - bytecode::kFirstState, list = num_slots + state;
      float* const scales = scales_of(lists[s], num_scales ? &lists[list] : nullptr, i, numbers >> s & 1, population);
      t.scales[state] = scales;
      if (scales && p.numel != 0) {
        const auto begin = reinterpret_cast<uintptr_t>(scales);
        const auto bytes = static_cast<uintptr_t>(scale_count(p.numel)) * sizeof(float);
        spans.push_back({begin, begin + bytes, true, static_cast<uint32_t>(list), static_cast<uint32_t>(i)});
      }
    }
    if (population) check_slices(params, i, population);
    if (p.numel == 0) continue;
    t.slices = population ? population : 1;
    t.numel = p.numel / t.slices;
    t.index = first_index + static_cast<uint32_t>(i);
    plan.tensors.push_back(t);
  }
  check_aliasing(spans, lists);
  for (const Interval& s : spans)
    if (s.written) plan.written.push_back({s.begin, s.end});
  return plan;
}

bool move_gradients(Plan& plan, const TensorList& grads, uint32_t first_index) {
  const auto ref = [&](const PlannedTensor& t) -> const TensorRef& { return grads.tensors[t.index - first_index]; };
  for (const PlannedTensor& t : plan.tensors) {
    const auto begin = reinterpret_cast<uintptr_t>(ref(t).data);
    const auto end =
        begin + static_cast<uintptr_t>(t.numel) * t.slices * static_cast<uintptr_t>(size_of(t.dtype[bytecode::kG]));
    const auto after = std::upper_bound(plan.written.begin(), plan.written.end(), begin,
                                        [](uintptr_t at, const Plan::Span& s) { return at < s.end; });
    if (after != plan.written.end() && after->begin < end) return false;
  }
  for (PlannedTensor& t : plan.tensors) t.data[bytecode::kG] = ref(t).data;
  return true;
}

}  // namespace nos
