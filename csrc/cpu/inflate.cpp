#include "cpu/inflate.h"

#include <dlfcn.h>

#include <functional>
#include <mutex>
#include <new>

namespace hepfeed {
namespace {

template <class Function>
bool find(void* handle, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(handle, name));
  return function != nullptr;
}

// ---- libdeflate: opaque decoder, one call a stream
// -----------------------------------------------------------------

struct LibdeflateFunctions {
  void* (*alloc)();
  void (*free)(void*);
  int (*decompress)(void*, const void*, size_t, void*, size_t, size_t*);
};

class LibdeflateInflater final : public Inflater {
 public:
  explicit LibdeflateInflater(const LibdeflateFunctions& functions)
      : call_(functions), state_(call_.alloc()) {
    if (!state_) throw std::bad_alloc();
  }
  ~LibdeflateInflater() override { call_.free(state_); }
  LibdeflateInflater(const LibdeflateInflater&) = delete;
  LibdeflateInflater& operator=(const LibdeflateInflater&) = delete;

  bool inflate(const uint8_t* in, size_t in_bytes, uint8_t* out, size_t out_bytes) override {
    size_t got = 0;
    return call_.decompress(state_, in, in_bytes, out, out_bytes, &got) == 0 && got == out_bytes;
  }

 private:
  LibdeflateFunctions call_;
  void* state_;
};

// ---- zlib and zlib-ng: the stream structure is zlib's ABI, of which zlib-ng's native one is a prefix
// -------------

struct ZStream {
  const uint8_t* next_in;
  uint32_t avail_in;
  size_t total_in;
  uint8_t* next_out;
  uint32_t avail_out;
  size_t total_out;
  const char* msg;
  void* state;
  void* zalloc;
  void* zfree;
  void* opaque;
  int data_type;
  size_t adler;
  size_t reserved;
};

constexpr int kFinish = 4, kStreamEnd = 1, kOk = 0, kWindowBits = 15;

struct ZlibFunctions {
  std::function<int(ZStream*)> init;
  int (*reset)(ZStream*);
  int (*inflate)(ZStream*, int);
  int (*end)(ZStream*);
};

class ZlibInflater final : public Inflater {
 public:
  explicit ZlibInflater(const ZlibFunctions& functions) : call_(functions) {
    if (call_.init(&stream_) != kOk) throw std::bad_alloc();
  }
  ~ZlibInflater() override { call_.end(&stream_); }
  ZlibInflater(const ZlibInflater&) = delete;
  ZlibInflater& operator=(const ZlibInflater&) = delete;

  bool inflate(const uint8_t* in, size_t in_bytes, uint8_t* out, size_t out_bytes) override {
    if (in_bytes > UINT32_MAX || out_bytes > UINT32_MAX) return false;  // an HDF5 chunk is below 4 GiB
    if (call_.reset(&stream_) != kOk) return false;
    stream_.next_in = in;
    stream_.avail_in = static_cast<uint32_t>(in_bytes);
    stream_.next_out = out;
    stream_.avail_out = static_cast<uint32_t>(out_bytes);
    return call_.inflate(&stream_, kFinish) == kStreamEnd && stream_.avail_out == 0;
  }

 private:
  ZlibFunctions call_;
  ZStream stream_{};
};

struct Library {
  std::string name;
  std::function<std::unique_ptr<Inflater>()> make;
};

// The registered libraries; they only ever grow in number.
struct Registry {
  std::mutex lock;
  std::vector<Library> libraries;
};

Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

bool register_inflater(const std::string& library, const std::string& path) {
  const std::lock_guard<std::mutex> lock(registry().lock);
  std::vector<Library>& libraries = registry().libraries;
  for (const auto& known : libraries)
    if (known.name == library) return true;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // kept open for the life of the process
  if (!handle) return false;
  if (library == "libdeflate") {
    LibdeflateFunctions call{};
    if (!find(handle, "libdeflate_alloc_decompressor", call.alloc) ||
        !find(handle, "libdeflate_free_decompressor", call.free) ||
        !find(handle, "libdeflate_zlib_decompress", call.decompress))
      return false;
    libraries.push_back({library, [call] { return std::make_unique<LibdeflateInflater>(call); }});
    return true;
  }
  const std::string prefix = library == "zlib-ng" ? "zng_" : "";
  ZlibFunctions call{};
  if (!find(handle, (prefix + "inflateReset").c_str(), call.reset) ||
      !find(handle, (prefix + "inflate").c_str(), call.inflate) ||
      !find(handle, (prefix + "inflateEnd").c_str(), call.end))
    return false;
  if (library == "zlib-ng") {
    int (*init2)(ZStream*, int) = nullptr;
    if (!find(handle, "zng_inflateInit2", init2)) return false;
    call.init = [init2](ZStream* stream) { return init2(stream, kWindowBits); };
  } else {
    int (*init2)(ZStream*, int, const char*, int) = nullptr;
    if (!find(handle, "inflateInit2_", init2)) return false;
    call.init = [init2](ZStream* stream) {
      return init2(stream, kWindowBits, "1.2.11", static_cast<int>(sizeof(ZStream)));
    };
  }
  libraries.push_back({library, [call] { return std::make_unique<ZlibInflater>(call); }});
  return true;
}

std::vector<std::string> inflaters() {
  const std::lock_guard<std::mutex> lock(registry().lock);
  std::vector<std::string> names;
  for (const auto& library : registry().libraries) names.push_back(library.name);
  return names;
}

std::vector<std::unique_ptr<Inflater>> make_inflaters() {
  const std::lock_guard<std::mutex> lock(registry().lock);
  std::vector<std::unique_ptr<Inflater>> made;
  for (const auto& library : registry().libraries) made.push_back(library.make());
  return made;
}

}  // namespace hepfeed
