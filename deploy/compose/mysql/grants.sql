-- Run once, by the first start of the database: the account of the services may make and use the schemas of the mesh,
-- and nothing else.
GRANT ALL ON `stampede\_%`.* TO 'stampede'@'%';
