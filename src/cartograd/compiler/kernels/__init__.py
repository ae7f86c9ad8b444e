"""Generators of kernels: each writes the code of one kind of work as LLVM IR."""
