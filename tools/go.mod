module kluis/tools

go 1.26
