#include "child.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#include "../ops/float_environment.h"

namespace nos::child {

#ifdef NOS_HAVE_AVX2
namespace avx2 {
extern const Kernels g_kernels;
}
#endif
#ifdef NOS_HAVE_AVX512
namespace avx512 {
extern const Kernels g_kernels;
}
#endif

const Kernels* kernels() {
  static const Kernels* const chosen = []() -> const Kernels* {
    const char* wanted = std::getenv("NOS_ISA");
    [[maybe_unused]] const auto may = [wanted](const char* name) {
      return !wanted || std::string_view(wanted) == name;
    };
#if defined(NOS_HAVE_AVX512)
    if (may("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      return &avx512::g_kernels;
#endif
#if defined(NOS_HAVE_AVX2)
    if (may("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::g_kernels;
#endif
    return nullptr;
  }();
  return chosen;
}

std::span<const LayerInfo> layer_table() {
  static constexpr LayerInfo table[] = {
#define NOS_LAYER(id, name, number, doc) {name, number, doc},
#include "layers.def"
#undef NOS_LAYER
  };
  return table;
}

Floats::Floats(size_t count) : size_(count) {
  if (!count) return;
  if (count > static_cast<size_t>(std::numeric_limits<int>::max())) throw TooLarge();
  const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
  data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
  if (!data_) throw std::bad_alloc();
  std::fill_n(data_.get(), bytes / sizeof(float), 0.0f);
}
void Floats::Free::operator()(float* p) const { std::free(p); }

namespace {

std::unique_ptr<Layer> make_layer(const LayerSpec& spec, const LayerPlace& place) {
  switch (spec.kind) {
#define NOS_LAYER(id, name, what, doc) \
  case LayerSpec::id:                  \
    return make_##id(place, spec.number);
#include "layers.def"
#undef NOS_LAYER
  }
  throw std::invalid_argument("layers: unknown kind " + std::to_string(spec.kind));
}

// Whether the first two layers cost less in one. Then a token's row is multiplied once and not for every example, but
// the products must be gathered, which is worth it from about two examples for each token on.
bool is_text_linear(std::span<const LayerSpec> layers, const Input& input, int batch) {
  return input.tokens && layers.size() > 1 && layers[0].kind == LayerSpec::embedding &&
         layers[1].kind == LayerSpec::linear && 2 * input.vocabulary <= batch;
}

const Kernels& kernels_or_throw() {
  const Kernels* found = kernels();
  if (!found)
    throw std::invalid_argument(
        "this machine, or NOS_ISA, has no fused multiply-add for the kernels of children; use engine='torch'");
  return *found;
}

constexpr const char* kTogether = "layers: norm_pool must follow each convolution, and nothing else";

int padded(int batch) {
  if (batch < 1) throw std::invalid_argument("batch is " + std::to_string(batch) + "; pass at least 1");
  if (batch > std::numeric_limits<int>::max() - kLanes) throw TooLarge();
  return (batch + kLanes - 1) / kLanes * kLanes;
}

size_t floats_of(const Image& i) {
  return static_cast<size_t>(i.height + 2 * i.border) * static_cast<size_t>(i.width + 2 * i.border) *
         static_cast<size_t>(i.channels) * static_cast<size_t>(i.lanes);
}

}  // namespace

Child::Child(const Input& input, std::span<const LayerSpec> layers, int batch)
    : input_(input), kernels_(kernels_or_throw()), batch_(batch), lanes_(padded(batch)) {
  if (layers.empty()) throw std::invalid_argument("layers is empty; pass at least one");
  Image shape = input.tokens ? Image{nullptr, 1, 1, input.tokens, 0, lanes_}
                             : Image{nullptr, input.height, input.width, input.channels, 0, lanes_};
  if (shape.height < 1 || shape.width < 1 || shape.channels < 1)
    throw std::invalid_argument("input: every size must be 1 or more");
  if (input.tokens && input.vocabulary < 1)
    throw std::invalid_argument("input: the vocabulary is " + std::to_string(input.vocabulary) + "; pass 1 or more");
  require_countable({std::max(input.vocabulary, 1), 4 * kLanes});
  activations_.push_back(shape);
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerSpec& spec = layers[i];
    const LayerPlace place{kernels_, input_, shape, lanes_};
    // with room for a border, for the sums of a convolution, and for the gates of recurrent units
    require_countable({shape.height, shape.width, shape.channels, lanes_});
    require_countable({std::max(spec.number, 1), 4, lanes_});
    if (i == 0 && is_text_linear(layers, input, batch)) {
      const int outputs = layers[++i].number;
      require_countable({std::max(outputs, 1), 4, lanes_});
      layers_.push_back(make_text_linear(place, spec.number, outputs));
    } else {
      layers_.push_back(make_layer(spec, place));
    }
    Layer& layer = *layers_.back();
    const bool given_tokens = input.tokens && layers_.size() == 1;
    if (layer.reads_tokens() != given_tokens)
      throw std::invalid_argument(std::string(layer_table()[spec.kind].name) +
                                  (given_tokens ? ": cannot read tokens; begin with embedding or text_gru"
                                                : ": wants tokens, which only the first layer of a text is given"));
    const bool wanted = layers_.size() > 1 && layers_[layers_.size() - 2]->wants_positive_gradient();
    if (wanted != layer.gives_positive_gradient()) throw std::invalid_argument(kTogether);
    activations_.back().border = layer.border();
    shape = layer.shape();
    shape.lanes = lanes_;
    activations_.push_back(shape);
    first_weight_.push_back(shapes_.size());
    first_running_.push_back(running_sizes_.size());
    for (auto& w : layer.weights()) shapes_.push_back(std::move(w));
    for (const int64_t n : layer.running()) running_sizes_.push_back(n);
  }
  if (layers_.back()->wants_positive_gradient()) throw std::invalid_argument(kTogether);
  if (shape.height != 1 || (shape.width != 1 && !input.tokens))
    throw std::invalid_argument("layers: the last one must give one number per class");
  if (input_.tokens) activations_[0].channels = 0;  // tokens are no activation
  gradient_images_ = activations_;
  for (size_t i = 0; i < activations_.size(); ++i) {
    Image &a = activations_[i], &g = gradient_images_[i];
    // a layer's result's gradient has the border that the layer reads around it; nobody reads that of the input
    g.border = i > 0 ? layers_[i - 1]->border() : 0;
    if (i == 0) g.channels = 0;
    const bool shared = i > 0 && i < layers_.size() && layers_[i]->in_place();
    if (shared) a.border = g.border = std::max(a.border, g.border);
    memory_.emplace_back(floats_of(a));
    a.data = memory_.back().data();
    if (!shared) memory_.emplace_back(floats_of(g));
    g.data = memory_.back().data();
  }
  if (!input_.tokens) {
    const Image& to = activations_[0];
    for (int c = 0; c < to.channels; ++c)
      for (int y = 0; y < to.height; ++y)
        for (int x = 0; x < to.width; ++x) places_.push_back(to.at(y, x) + ptrdiff_t{c} * lanes_ - to.data);
    rows_.resize(static_cast<size_t>(lanes_));
    nothing_ = Floats(places_.size());
  }
  // every tensor starts at a cache line
  const auto place = [](const auto& sizes, Floats& memory) {
    size_t total = 0;
    for (const int64_t n : sizes) total += (static_cast<size_t>(n) + 15) / 16 * 16;
    memory = Floats(total);
    std::vector<float*> out;
    float* next = memory.data();
    for (const int64_t n : sizes) {
      out.push_back(next);
      next += (static_cast<size_t>(n) + 15) / 16 * 16;
    }
    return out;
  };
  std::vector<int64_t> sizes;
  for (const auto& s : shapes_) {
    int64_t n = 1;
    for (const int64_t d : s) n *= d;
    sizes.push_back(n);
  }
  const std::vector<float*> values = place(sizes, values_), gradients = place(sizes, gradients_);
  for (size_t i = 0; i < sizes.size(); ++i) weights_.push_back({values[i], gradients[i]});
  running_ = place(running_sizes_, running_memory_);
  probabilities_ = Floats(floats_of(activations_.back()));
  tokens_.resize(static_cast<size_t>(input_.tokens) * static_cast<size_t>(lanes_));
  classes_.resize(static_cast<size_t>(targets()) * static_cast<size_t>(lanes_));
}

int Child::classes() const { return activations_.back().channels; }
int Child::targets() const { return activations_.back().width; }

size_t Child::memory() const {
  size_t bytes = (values_.size() + gradients_.size() + running_memory_.size() + probabilities_.size()) * sizeof(float) +
                 (tokens_.size() + classes_.size()) * sizeof(int32_t) + places_.size() * sizeof(ptrdiff_t) +
                 rows_.size() * sizeof(float*) + nothing_.size() * sizeof(float);
  for (const Floats& m : memory_) bytes += m.size() * sizeof(float);
  for (const auto& layer : layers_) bytes += layer->memory();
  return bytes;
}

// Backward, a layer multiplies once for its weights and once for its input, which the first layer leaves out.
double Child::multiply_adds() const {
  double sum = 0;
  for (size_t i = 0; i < layers_.size(); ++i) sum += (i ? 3 : 2) * layers_[i]->multiply_adds();
  return sum * batch_;
}

// Examples index[0], index[1], ..., or without index first, first + 1, ...
void Child::gather(const Examples& data, const int64_t* index, int64_t first, int examples) {
  for (int lane = 0; lane < lanes_; ++lane) {
    const auto l = static_cast<size_t>(lane);
    const bool used = lane < examples;
    const int64_t e = !used ? 0 : index ? index[lane] : first + lane;
    for (int t = 0; t < targets(); ++t)
      classes_[static_cast<size_t>(t * lanes_ + lane)] = used ? data.classes[e * targets() + t] : -1;
    for (int p = 0; p < input_.tokens; ++p)
      tokens_[static_cast<size_t>(p * lanes_ + lane)] = used ? data.tokens[e * input_.tokens + p] : 0;
    if (!input_.tokens) rows_[l] = used ? data.images + e * static_cast<int64_t>(places_.size()) : nothing_.data();
  }
  if (!input_.tokens)
    kernels_.gather(rows_.data(), static_cast<int>(places_.size()), places_.data(), lanes_, activations_[0].data);
}

void Child::forward(int examples, bool training, float momentum) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Pass pass{activations_[i],
                    activations_[i + 1],
                    {},
                    {},
                    std::span(weights_).subspan(first_weight_[i]),
                    std::span<float* const>(running_).subspan(first_running_[i]),
                    tokens_.data(),
                    examples,
                    training,
                    momentum};
    layers_[i]->forward(pass);
  }
}

Loss Child::loss(int examples, bool gradient) {
  return kernels_.cross_entropy(activations_.back(), classes_.data(), examples, gradient, probabilities_.data());
}

Loss Child::gradients(const Examples& data, std::span<const int64_t> index, float momentum) {
  const FloatEnvironment environment;
  const int examples = static_cast<int>(index.size());
  gather(data, index.data(), 0, examples);
  forward(examples, true, momentum);
  const Loss out = loss(examples, true);
  gradient_images_.back().data = probabilities_.data();
  for (size_t i = layers_.size(); i-- > 0;) {
    Image in_gradient = gradient_images_[i];
    if (i == 0) in_gradient.data = nullptr;
    const Pass pass{activations_[i],
                    activations_[i + 1],
                    gradient_images_[i + 1],
                    in_gradient,
                    std::span(weights_).subspan(first_weight_[i]),
                    std::span<float* const>(running_).subspan(first_running_[i]),
                    tokens_.data(),
                    examples,
                    true,
                    momentum};
    layers_[i]->backward(pass);
  }
  return out;
}

Loss Child::evaluate(const Examples& data, int64_t first, int64_t last) {
  const FloatEnvironment environment;
  Loss out{0, 0, 0};
  for (; first < last; first += batch_) {
    const int examples = static_cast<int>(std::min<int64_t>(batch_, last - first));
    gather(data, nullptr, first, examples);
    forward(examples, false, 0);
    const Loss part = loss(examples, false);
    out.sum += part.sum;
    out.right += part.right;
    out.counted += part.counted;
  }
  return out;
}

}  // namespace nos::child
