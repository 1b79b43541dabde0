#include "capture/row_sieve.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace routestats {

std::int32_t RowSieve::begin(RequestLimits limits) {
  if (limits.domain >= kept_of_domain_.size()) kept_of_domain_.resize(limits.domain + 1, -1);
  std::int32_t number = 0;
  if (free_.empty()) {
    number = static_cast<std::int32_t>(requests_.size());
    requests_.emplace_back();
  } else {
    number = free_.back();
    free_.pop_back();
  }
  Request& request = requests_[static_cast<std::size_t>(number)];
  request = Request{};
  request.limits = std::move(limits);
  request.active = true;
  return number;
}

RowSieve::Request& RowSieve::active(std::int32_t number) {
  const auto place = static_cast<std::size_t>(number);
  if (number < 0 || place >= requests_.size() || !requests_[place].active) {
    throw std::invalid_argument("requests: " + std::to_string(number) + " is not under way");
  }
  return requests_[place];
}

std::optional<RowSieve::Reached> RowSieve::end(std::int32_t number,
                                               std::optional<std::int64_t> sampled) {
  Request& request = active(number);
  if (Draft& draft = request.draft; !draft.token_ids.empty()) {
    if (sampled) {
      // n sampled tokens: the first row of the step and n - 1 accepted drafts were real.
      resolve(number, draft.step_position + *sampled);
    } else {
      totals_.unconfirmed += std::ssize(draft.token_ids);
      draft.token_ids.clear();
    }
  }
  request.active = false;
  ended_.push_back(number);
  if (request.high < 0) return std::nullopt;
  return Reached{request.high, request.cached};
}

std::optional<std::size_t> RowSieve::add(const RequestRows& step) {
  const std::size_t requests = step.requests.size();
  if (step.counts.size() != requests || (!step.drafts.empty() && step.drafts.size() != requests)) {
    throw std::invalid_argument("counts, drafts: expected one of each request");
  }
  const std::int64_t rows = std::ssize(step.positions);
  const std::int64_t first = rows_;
  rows_ += rows;  // also of what is refused: the caller has the data
  std::int64_t start = 0;
  for (std::size_t i = 0; i < requests; ++i) {
    const std::int64_t count = step.counts[i];
    if (count < 0 || count > rows - start || step.token_ids.size() != step.positions.size()) {
      throw std::invalid_argument("counts: expected the " + std::to_string(rows) +
                                  " rows of the step");
    }
    if (count == 0) continue;
    const std::int32_t number = step.requests[i];
    if (number == RequestRows::kForeign) {
      totals_.foreign += count;
    } else {
      const auto from = static_cast<std::size_t>(start);
      const auto length = static_cast<std::size_t>(count);
      const std::int64_t position = step.positions[from];
      if (step.positions[from + length - 1] != position + count - 1) return i;
      active(number);
      add_rows(number, {first + start, position, step.token_ids.subspan(from, length)},
               step.drafts.empty() ? 0 : step.drafts[i]);
    }
    start += count;
  }
  return std::nullopt;
}

void RowSieve::add_rows(std::int32_t number, const Rows& rows, std::int64_t drafts) {
  Request& request = requests_[static_cast<std::size_t>(number)];
  const std::int64_t count = std::ssize(rows.token_ids);
  // The position at which the request goes on says how many drafts were accepted.
  if (!request.draft.token_ids.empty()) resolve(number, rows.position);
  if (request.high < 0) request.high = request.cached = rows.position;
  const std::int64_t certain = count - drafts;
  // The rows before the first one are repeated.
  const std::int64_t first = std::clamp<std::int64_t>(request.high - rows.position, 0, count);
  totals_.duplicate += first;
  const std::int64_t end = let_through(number, rows, first, certain);
  totals_.overrun += std::max<std::int64_t>(certain - std::max(end, first), 0);
  const std::int64_t waiting = std::max(certain, first);
  if (waiting >= count) return;
  const auto tokens = rows.token_ids.subspan(static_cast<std::size_t>(waiting));
  request.draft.row = rows.row + waiting;
  request.draft.position = rows.position + waiting;
  request.draft.step_position = rows.position;
  request.draft.token_ids.assign(tokens.begin(), tokens.end());
}

std::int64_t RowSieve::let_through(std::int32_t number, const Rows& rows, std::int64_t first,
                                   std::int64_t stop) {
  if (first >= stop) return stop;
  Request& request = requests_[static_cast<std::size_t>(number)];
  const RequestLimits& limits = request.limits;
  const std::int64_t own = limits.prompt_tokens - rows.position;  // the first one of its output
  for (std::int64_t i = std::max(own, first); i < stop; ++i) {
    // The request was over before a token of its own output could be run.
    if (rows.position + i > limits.last_position ||
        std::ranges::find(limits.stop_ids, rows.token_ids[static_cast<std::size_t>(i)]) !=
            limits.stop_ids.end()) {
      stop = i;
      break;
    }
  }
  if (stop <= first) return stop;
  request.high = rows.position + stop;
  Kept& kept = kept_of(number);
  for (std::int64_t i = first; i < stop; ++i) {
    kept.rows.push_back(rows.row + i);
    kept.request_index.push_back(request.index);
    kept.prefill.push_back(i < own ? 1 : 0);
  }
  return stop;
}

RowSieve::Kept& RowSieve::kept_of(std::int32_t number) {
  Request& request = requests_[static_cast<std::size_t>(number)];
  const std::uint32_t domain = request.limits.domain;
  std::int32_t& place = kept_of_domain_[domain];
  if (place < 0) {
    place = static_cast<std::int32_t>(kept_.size());
    kept_.push_back({domain, {}, {}, {}, {}});
  }
  Kept& kept = kept_[static_cast<std::size_t>(place)];
  if (request.piece != piece_) {
    request.piece = piece_;
    request.index = static_cast<std::int32_t>(kept.requests.size());
    kept.requests.push_back(number);
  }
  return kept;
}

void RowSieve::resolve(std::int32_t number, std::int64_t accepted_below) {
  Request& request = requests_[static_cast<std::size_t>(number)];
  Draft& draft = request.draft;
  const std::int64_t count = std::ssize(draft.token_ids);
  const std::int64_t accepted = std::clamp<std::int64_t>(accepted_below - draft.position, 0, count);
  // After a preemption the request starts again below what it had reached.
  const std::int64_t first = std::clamp<std::int64_t>(request.high - draft.position, 0, count);
  const std::int64_t end =
      let_through(number, {draft.row, draft.position, draft.token_ids}, first, accepted);
  totals_.rejected += count - std::max(end, first);
  draft.token_ids.clear();
}

RowSieve::Piece RowSieve::take() {
  Piece piece{std::move(kept_), {}};
  kept_.clear();
  std::ranges::fill(kept_of_domain_, -1);
  ++piece_;
  for (Request& request : requests_) {
    Draft& draft = request.draft;
    if (draft.token_ids.empty()) continue;
    const std::int64_t row = draft.row;
    draft.row = std::ssize(piece.waiting);
    for (std::int64_t i = 0; i < std::ssize(draft.token_ids); ++i) piece.waiting.push_back(row + i);
  }
  rows_ = std::ssize(piece.waiting);
  free_.insert(free_.end(), ended_.begin(), ended_.end());
  ended_.clear();
  return piece;
}

}  // namespace routestats
