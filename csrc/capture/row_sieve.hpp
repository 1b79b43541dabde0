#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace routestats {

// What is known of a request when it begins.
struct RequestLimits {
  std::int64_t prompt_tokens;
  std::int64_t last_position;          // the largest that can be run
  std::vector<std::int32_t> stop_ids;  // tokens that end it
  std::uint32_t domain;
};

// The rows of one step: counts[i] rows of requests[i], one after the other.
struct RequestRows {
  std::span<const std::int32_t> requests;  // by the numbers of RowSieve; kForeign: another's
  std::span<const std::int32_t> counts;
  std::span<const std::int32_t> drafts;  // how many of a request's last rows are; empty: none
  std::span<const std::int32_t> positions;
  std::span<const std::int32_t> token_ids;

  static constexpr std::int32_t kForeign = -1;
};

// Lets each real row of an engine's steps through, once.
//
// An engine also runs draft tokens that it then rejects, tokens that it runs again after a
// preemption and, where it schedules ahead, a step past the end of a request. The first row of a
// position is real, up to the end of its request. Drafts wait until the next step of their request,
// or its end, says how many of them were accepted.
//
// The caller keeps the rows' data and takes in what was let through piece by piece. Rows are
// numbered within a piece: first those that waited at the end of the piece before, then those of
// the steps.
class RowSieve {
 public:
  // How far a request had come; nothing where it never ran.
  struct Reached {
    std::int64_t positions;  // one more than its last
    std::int64_t cached;     // its first position
  };

  // What a piece gave one domain; the vectors run over rows, `requests` over requests.
  struct Kept {
    std::uint32_t domain;
    std::vector<std::int64_t> rows;
    std::vector<std::int32_t> request_index;  // in `requests`
    std::vector<std::uint8_t> prefill;        // 1 before the end of the prompt
    std::vector<std::int32_t> requests;       // in the order of their first rows
  };

  struct Piece {
    std::vector<Kept> kept;             // in the order of the domains' first rows
    std::vector<std::int64_t> waiting;  // the first rows of the next piece
  };

  struct Totals {
    std::int64_t duplicate = 0;    // run again after a preemption
    std::int64_t rejected = 0;     // drafts that were not accepted
    std::int64_t overrun = 0;      // past the end of a request
    std::int64_t unconfirmed = 0;  // drafts in a request's last step that nobody decided on
    std::int64_t foreign = 0;
  };

  // Returns the number of a request that begins. Numbers of ended requests are given again, but not
  // before `take`.
  std::int32_t begin(RequestLimits limits);

  // Ends a request. `sampled`: how many tokens its last step with drafts gave it, if that is known.
  std::optional<Reached> end(std::int32_t request, std::optional<std::int64_t> sampled);

  // Whether drafts of a request wait for its next step or its end.
  bool waits(std::int32_t request) { return !active(request).draft.token_ids.empty(); }

  // Takes in the rows of a step. Returns the index of the first request whose positions are not
  // consecutive; it and those after it are not taken in. Throws std::invalid_argument for a number
  // that is no request's, or for rows that are not those that the counts say.
  std::optional<std::size_t> add(const RequestRows& step);

  // Ends the piece.
  Piece take();

  const Totals& totals() const { return totals_; }

 private:
  // Rows that wait.
  struct Draft {
    std::int64_t row = 0;                 // the first one's number
    std::int64_t position = 0;            // its position
    std::int64_t step_position = 0;       // that of the first row of the step
    std::vector<std::int32_t> token_ids;  // of each; empty: none wait
  };

  struct Request {
    RequestLimits limits;
    bool active = false;
    std::int64_t high = -1;  // the next position to let through; -1 before the first row
    std::int64_t cached = 0;
    Draft draft;
    // Its place in what the piece gave, if it has one.
    std::uint64_t piece = 0;
    std::int32_t index = 0;
  };

  // Rows of one request at consecutive positions.
  struct Rows {
    std::int64_t row;
    std::int64_t position;
    std::span<const std::int32_t> token_ids;
  };

  Request& active(std::int32_t number);
  void add_rows(std::int32_t number, const Rows& rows, std::int64_t drafts);
  // Lets `rows` through from the one at `first` to before `stop`, up to the end of the request.
  // Returns the index of the next.
  std::int64_t let_through(std::int32_t number, const Rows& rows, std::int64_t first,
                           std::int64_t stop);
  void resolve(std::int32_t number, std::int64_t accepted_below);
  Kept& kept_of(std::int32_t number);

  std::vector<Request> requests_;
  std::vector<std::int32_t> free_;
  std::vector<std::int32_t> ended_;  // free after the piece
  std::vector<Kept> kept_;
  std::vector<std::int32_t> kept_of_domain_;  // index into kept_, or -1
  std::uint64_t piece_ = 1;
  std::int64_t rows_ = 0;  // of the piece
  Totals totals_;
};

}  // namespace routestats
