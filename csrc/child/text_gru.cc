#include "recurrence.h"

namespace nos::child {
namespace {

// A text has few different tokens at many positions. So the product of W with a row of the embedding is taken once for
// every token, as if the vocabulary were a batch of examples, and the gradients of all positions with one token are
// summed before they meet W.
class TextGru final : public Layer {
 public:
  TextGru(const LayerPlace& place, int units)
      : kernels_(place.kernels),
        length_(place.input.tokens),
        vocabulary_(place.input.vocabulary),
        units_(units),
        lanes_(place.lanes),
        tokens_(row_of(vocabulary_)),
        recurrence_(place, units),
        forward_(units, 3 * units),
        back_(3 * units, units),
        start_(in_panels(3 * units)),
        zeros_(in_panels(units)),
        rows_(floats(units, tokens_)),
        sums_(floats(3 * units, tokens_)),
        table_(floats(tokens_, row_of(3 * units))),
        turned_(floats(kTurned, row_of(units))),
        products_(floats(3 * units, row_of(units))) {}

  Image shape() const override { return {nullptr, 1, length_, units_, 0, 0}; }
  bool reads_tokens() const override { return true; }
  std::vector<std::vector<int64_t>> weights() const override {
    auto all = Recurrence::weights(units_, units_);
    all.insert(all.begin(), {vocabulary_, units_});
    return all;
  }
  // Of a first layer a step is counted as twice its forward pass; but what a state is multiplied with comes three
  // times.
  double multiply_adds() const override { return 1.5 * recurrence_.multiply_adds(); }
  size_t memory() const override {
    return recurrence_.memory() + (forward_.size() + back_.size() + start_.size() + zeros_.size() + rows_.size() +
                                   sums_.size() + table_.size() + turned_.size() + products_.size()) *
                                      sizeof(float);
  }

  void forward(const Pass& pass) override {
    const auto weights = pass.weights.subspan(1);
    recurrence_.pack_input(weights, forward_, start_.data());
    visit(pass.weights[0].value, [](float& theirs, float& ours) { ours = theirs; });
    kernels_.multiply_positions(forward_.data(), start_.data(), units_, 3 * units_, rows(), sums(), 1, tokens_);
    kernels_.turn_matrix(sums_.data(), tokens_, 3 * units_, vocabulary_, table_.data(), row_of(3 * units_));
    kernels_.take(table_.data(), 3 * units_, pass.tokens, recurrence_.input(), length_, lanes_);
    recurrence_.forward(weights, strip(pass.out));
  }

  void backward(const Pass& pass) override {
    const auto weights = pass.weights.subspan(1);
    recurrence_.backward(weights, strip(pass.out), strip(pass.out_gradient), pass.examples);
    kernels_.collect(recurrence_.input(), length_, lanes_, pass.examples, pass.tokens, 3 * units_, vocabulary_,
                     table_.data());
    kernels_.turn_matrix(table_.data(), row_of(3 * units_), vocabulary_, 3 * units_, sums_.data(), tokens_);
    kernels_.position_weights(rows(), units_, sums(), 3 * units_, 1, tokens_, vocabulary_, turned_.data(),
                              products_.data());
    recurrence_.unpack_input(products_.data(), units_, weights[0].gradient);
    recurrence_.pack_input_back(weights, back_);
    kernels_.multiply_positions(back_.data(), zeros_.data(), 3 * units_, units_, sums(), rows(), 1, tokens_);
    visit(pass.weights[0].gradient, [](float& theirs, float& ours) { theirs = ours; });
  }

 private:
  Strip rows() { return {rows_.data(), 0}; }  // of the embedding, [unit][token]
  Strip sums() { return {sums_.data(), 0}; }  // [row of Recurrence::input][token]

  // work(a number of an embedding [token][unit], the same in rows())
  template <class Work>
  void visit(float* embedding, const Work& work) {
    for (int token = 0; token < vocabulary_; ++token)
      for (int u = 0; u < units_; ++u) work(embedding[at(token, units_, u)], rows_.data()[at(u, tokens_, token)]);
  }

  const Kernels& kernels_;
  const int length_, vocabulary_, units_, lanes_, tokens_;
  Recurrence recurrence_;
  Panels forward_, back_;
  Floats start_, zeros_, rows_, sums_, table_, turned_, products_;
};

}  // namespace

std::unique_ptr<Layer> make_text_gru(const LayerPlace& place, int units) {
  return std::make_unique<TextGru>(place, units);
}

}  // namespace nos::child
