"""Thousands of cells of no work and hundreds of workers on one folder: `python -m scale_simulation --help`.

Plan, queue, claims, cell folders, status and workers are the real ones; a cell's training alone is replaced. Workers
are processes. Some are killed with SIGKILL at a chosen file operation of a cell; claims of other hosts' dead and living
workers lie in some cells. What must hold whatever happens:

- every cell is finished in the end, and none is begun again after it was;
- at no time are two living workers in one cell;
- a living worker of another host keeps its cell, a dead one's cell is taken over.
"""
