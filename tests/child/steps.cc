// Prints, for each of some networks, a hash of the bits of its loss, gradients and running statistics after one step.
// Compiled for two instruction sets it must print the same. Weights and examples come from integers, so no library's
// random numbers are asked.
#include <cstdio>
#include <cstring>

#include "../../csrc/child/child.h"

using namespace nos::child;

static uint32_t g_state = 1;
static uint32_t draw() { return (g_state = g_state * 1664525u + 1013904223u) >> 8; }
static float number() { return static_cast<float>(draw()) / (1 << 23) - 1.0f; }  // in [-1, 1)

static uint64_t g_hash;
static void add(const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    g_hash = (g_hash ^ static_cast<const unsigned char*>(from)[i]) * 1099511628211ull;  // FNV
}

static void step(const char* name, const Input& input, std::vector<LayerSpec> layers, int batch) {
  Child child(input, layers, batch);
  g_hash = 14695981039346656037ull;
  std::vector<int64_t> sizes;
  for (const auto& shape : child.shapes()) {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    sizes.push_back(n);
  }
  for (size_t k = 0; k < sizes.size(); ++k)
    for (int64_t i = 0; i < sizes[k]; ++i) child.weights()[k].value[i] = 0.5f * number();
  const auto count = static_cast<size_t>(batch);
  std::vector<float> images;
  std::vector<int32_t> tokens, classes;
  for (size_t i = 0; i < count * static_cast<size_t>(input.channels * input.height * input.width); ++i)
    images.push_back(number());
  for (size_t i = 0; i < count * static_cast<size_t>(input.tokens); ++i)
    tokens.push_back(static_cast<int32_t>(draw()) % input.vocabulary);
  for (size_t i = 0; i < count * static_cast<size_t>(child.targets()); ++i)
    classes.push_back(static_cast<int32_t>(draw()) % child.classes());
  std::vector<int64_t> index;
  for (int64_t i = 0; i < batch; ++i) index.push_back(i);
  const Loss loss = child.gradients({images.data(), tokens.data(), classes.data(), batch}, index, 0.5f);
  add(&loss.sum, sizeof loss.sum);
  for (size_t k = 0; k < sizes.size(); ++k) add(child.weights()[k].gradient, static_cast<size_t>(sizes[k]) * 4);
  for (size_t k = 0; k < child.running().size(); ++k)
    add(child.running()[k], static_cast<size_t>(child.running_sizes()[k]) * 4);
  std::printf("%s %.6f %016llx\n", name, loss.sum / static_cast<double>(loss.counted),
              static_cast<unsigned long long>(g_hash));
}

int main() {
  using L = LayerSpec;
  step("convolution", {2, 7, 9, 0, 0}, {{L::convolution, 5}, {L::norm_pool, 0}, {L::linear, 3}}, 33);
  step("winograd", {1, 13, 8, 0, 0},
       {{L::convolution, 19}, {L::norm_pool, 0}, {L::convolution, 19}, {L::norm_pool, 0}, {L::linear, 3}}, 37);
  step("mlp", {1, 8, 8, 0, 0}, {{L::linear, 32}, {L::relu, 0}, {L::linear, 10}}, 100);
  step("text", {0, 0, 0, 8, 60}, {{L::embedding, 16}, {L::linear, 64}, {L::relu, 0}, {L::linear, 60}}, 128);
  step("gru", {0, 0, 0, 12, 30}, {{L::embedding, 7}, {L::gru, 18}, {L::gru, 5}, {L::position_linear, 9}}, 50);
  step("text_gru", {0, 0, 0, 9, 13}, {{L::text_gru, 21}, {L::position_linear, 13}}, 19);
}
