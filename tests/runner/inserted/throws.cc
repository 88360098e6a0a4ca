// A C++ exception of a user handler goes through the vDSO function, and finds the way by itself.
// The function comes from the dynamic linker: by name, with the version, and by address backwards.
#include <dlfcn.h>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>

struct run {
	uint64_t tcs;
	uint32_t function;
	uint16_t vector, error_code;
	uint64_t addr, user_handler, user_data;
	uint8_t reserved[216];
};
typedef int (*enter_t)(uint64_t, uint64_t, uint64_t, unsigned, uint64_t, uint64_t, run *);

static int handler(uint64_t rdi, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, run *)
{
	throw std::runtime_error(rdi == 42 ? "forty-two" : "wrong");
}

struct Guard {
	bool *left;
	~Guard() { *left = true; }
};

static void enter_guarded(enter_t enter, run *run, bool *left)
{
	Guard guard{left};
	enter(1, 2, 3, 2, 5, 6, run);
}

int main()
{
	void *vdso = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
	void *named = vdso ? dlsym(vdso, "__vdso_sgx_enter_enclave") : nullptr;
	void *versioned = vdso ? dlvsym(vdso, "__vdso_sgx_enter_enclave", "LINUX_2.6") : nullptr;
	Dl_info info{};
	bool left = false;

	if (!named || named != versioned)
		return 3;
	if (dlvsym(vdso, "__vdso_sgx_enter_enclave", "LINUX_2.7"))
		return 4;
	if (!dladdr(named, &info) || !info.dli_sname || strcmp(info.dli_sname, "__vdso_sgx_enter_enclave"))
		return 5;
	run run{};
	run.user_handler = reinterpret_cast<uint64_t>(handler);
	try {
		enter_guarded(reinterpret_cast<enter_t>(named), &run, &left);
	} catch (const std::runtime_error &error) {
		return left && !strcmp(error.what(), "forty-two") ? 0 : 6;
	}
	return 7;
}
