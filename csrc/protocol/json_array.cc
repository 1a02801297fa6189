#include "protocol/json_array.h"

#include <cstring>

#include "protocol/json_number.h"

namespace msserving {
namespace {

// All spaces are below the characters that follow them, so that one comparison ends most calls.
const uint8_t* SkipSpace(const uint8_t* p) {
  while (*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) [[unlikely]] {
      ++p;
    }
  return p;
}

// Something that begins a JSON value of another type than the one looked for.
bool BeginsOtherValue(uint8_t c) {
  return c == '"' || c == '{' || c == '[' || c == 't' || c == 'f' || c == 'n' || c == '-' || (c >= '0' && c <= '9');
}

// A leaf reader reads one element at *p to `out` and moves *p behind it.
struct Int32Leaf {
  static constexpr size_t kSize = sizeof(int32_t);
  static ArrayDefect Read(const uint8_t** p, uint8_t* out) {
    ScannedNumber number;
    if (!ScanNumber(*p, &number)) {
      return **p != '-' && BeginsOtherValue(**p) && !json_internal::IsDigit(**p) ? ArrayDefect::kMixed
                                                                                 : ArrayDefect::kSyntax;
    }
    if (number.real) {
      return ArrayDefect::kMixed;
    }
    int32_t value;
    if (!ToInt32(number, &value)) {
      return ArrayDefect::kOutOfRange;
    }
    std::memcpy(out, &value, sizeof(value));
    *p = number.end;
    return ArrayDefect::kNone;
  }
};

struct Float32Leaf {
  static constexpr size_t kSize = sizeof(float);
  [[gnu::always_inline]] static ArrayDefect Read(const uint8_t** p, uint8_t* out) {
    const uint8_t* text = *p;  // not by its address: it would be stored and loaded for each number
    float value;
    if (ReadShortReal(&text, &value)) {
      *p = text;
      std::memcpy(out, &value, sizeof(value));
      return ArrayDefect::kNone;
    }
    ScannedNumber number;
    if (!ScanNumber(*p, &number)) {
      return **p != '-' && BeginsOtherValue(**p) && !json_internal::IsDigit(**p) ? ArrayDefect::kMixed
                                                                                 : ArrayDefect::kSyntax;
    }
    if (!number.real) {
      return ArrayDefect::kMixed;
    }
    if (!ToFloat32(number, &value)) {
      return ArrayDefect::kOutOfRange;
    }
    std::memcpy(out, &value, sizeof(value));
    *p = number.end;
    return ArrayDefect::kNone;
  }
};

struct BoolLeaf {
  static constexpr size_t kSize = 1;
  static ArrayDefect Read(const uint8_t** p, uint8_t* out) {
    if (std::memcmp(*p, "true", 4) == 0) {
      *out = 1;
      *p += 4;
      return ArrayDefect::kNone;
    }
    if (std::memcmp(*p, "false", 5) == 0) {
      *out = 0;
      *p += 5;
      return ArrayDefect::kNone;
    }
    return **p != 't' && **p != 'f' && BeginsOtherValue(**p) ? ArrayDefect::kMixed : ArrayDefect::kSyntax;
  }
};

template <class Leaf>
class Reader {
 public:
  Reader(const uint8_t* text, int rank, uint8_t* out, ArrayResult* result)
      : p_(text), out_(out), rank_(rank), result_(*result) {
    for (int i = 0; i < kMaxRank; ++i) {
      result_.dims[i] = -1;
    }
  }

  void Run() {
    if (ReadLevel(0)) {
      result_.text_end = p_;
      result_.out_end = out_;
    }
  }

 private:
  bool Fail(ArrayDefect defect, int depth) {
    result_.defect = defect;
    result_.at = p_;
    result_.depth = depth;
    return false;
  }

  // p_ at the opening bracket of an array of this depth.
  bool ReadLevel(int depth) {
    const uint8_t* const begin = p_;
    p_ = SkipSpace(p_ + 1);
    if (*p_ == ']') {
      return Fail(ArrayDefect::kEmpty, depth);
    }
    int64_t count = 0;
    if (!(depth + 1 == rank_ ? ReadLeaves(depth, &count) : ReadArrays(depth, &count))) {
      return false;
    }
    ++p_;
    int64_t& dim = result_.dims[depth];
    if (dim < 0) {
      dim = count;
    } else if (dim != count) {
      result_.length = count;
      p_ = begin;
      return Fail(ArrayDefect::kRagged, depth);
    }
    return true;
  }

  // Elements up to the closing bracket, p_ left at it.
  bool ReadLeaves(int depth, int64_t* count) {
    const uint8_t* p = p_;
    uint8_t* out = out_;
    const uint8_t* const first = out;
    for (;;) {
      const ArrayDefect defect = Leaf::Read(&p, out);
      if (defect != ArrayDefect::kNone) [[unlikely]] {
        p_ = p;
        result_.position[depth] = (out - first) / static_cast<int64_t>(Leaf::kSize);
        return Fail(defect, depth + 1);
      }
      out += Leaf::kSize;
      p = SkipSpace(p);
      if (*p != ',') {
        break;
      }
      p = SkipSpace(p + 1);
    }
    p_ = p;
    out_ = out;
    *count = (out - first) / static_cast<int64_t>(Leaf::kSize);
    return *p == ']' || Fail(ArrayDefect::kSyntax, depth);
  }

  bool ReadArrays(int depth, int64_t* count) {
    for (;;) {
      result_.position[depth] = (*count)++;
      if (*p_ != '[') {
        return Fail(BeginsOtherValue(*p_) ? ArrayDefect::kMixed : ArrayDefect::kSyntax, depth + 1);
      }
      if (!ReadLevel(depth + 1)) {
        return false;
      }
      p_ = SkipSpace(p_);
      if (*p_ != ',') {
        break;
      }
      p_ = SkipSpace(p_ + 1);
    }
    return *p_ == ']' || Fail(ArrayDefect::kSyntax, depth);
  }

  const uint8_t* p_;
  uint8_t* out_;
  const int rank_;
  ArrayResult& result_;
};

template <class Leaf>
void ReadAs(const uint8_t* text, int rank, uint8_t* out, ArrayResult* result) {
  Reader<Leaf>(text, rank, out, result).Run();
}

}  // namespace

ArrayStart PeekArray(const uint8_t* text) {
  ArrayStart start;
  const uint8_t* p = text;
  for (; *p == '['; p = SkipSpace(p + 1)) {
    if (++start.rank > kMaxRank) {
      start.defect = ArrayDefect::kTooDeep;
      start.leaf = p;
      return start;
    }
  }
  start.leaf = p;
  if (*p == ']') {
    start.defect = ArrayDefect::kEmpty;
  } else if (*p == 't' || *p == 'f') {
    start.type = DataType::kBool;
  } else if (ScannedNumber number; ScanNumber(p, &number)) {
    start.type = number.real ? DataType::kFloat32 : DataType::kInt32;
  }
  return start;
}

void ReadArray(const uint8_t* text, const ArrayStart& start, uint8_t* out, ArrayResult* result) {
  if (start.type == DataType::kInt32) {
    ReadAs<Int32Leaf>(text, start.rank, out, result);
  } else if (start.type == DataType::kFloat32) {
    ReadAs<Float32Leaf>(text, start.rank, out, result);
  } else {
    ReadAs<BoolLeaf>(text, start.rank, out, result);
  }
}

}  // namespace msserving
