"""The rules of `compiler.rewrite`, by what they are about."""
