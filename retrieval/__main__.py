import sys

if __name__ == "__main__":
    try:
        from retrieval.cli import main

        code = main()
    except KeyboardInterrupt:  # while modules are loaded; later ``main`` says it
        print("Stopped.", file=sys.stderr)
        code = 130
    raise SystemExit(code)
